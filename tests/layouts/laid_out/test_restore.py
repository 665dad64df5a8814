"""Back to the checkpoint, and on to other layouts: the same bytes, or a refusal that names what was lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from preshuffle.layouts.laid_out import (
    LaidOutError,
    convert_laid_out,
    lay_out_checkpoint,
    plain_layer,
    restore_checkpoint,
    verify_laid_out,
)
from preshuffle.registry import NoRecipeError
from support.tensors.laid_out import (
    DEEPSEEK,
    GPT_OSS,
    LLAMA4,
    QWEN,
    checkpoint_with_others,
    contents,
    quantized,
)

A4W4: dict[str, Any] = {"arch": "gfx950", "activation_dtype": "fp4x2"}
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("GUGU, ranks of different sizes", GPT_OSS, {**A4W4, "tp": 8}),
    ("fp8 blocks", quantized(QWEN, "fp8 block"), {"arch": "gfx950", "tp": 2}),
    ("fp8 channels", quantized(QWEN, "quark channel"), {"arch": "gfx950", "ep": 2}),
    ("int4 in words", quantized(QWEN, "ct int4"), {"arch": "gfx950", "tp": 2}),
    ("shared expert, fused", quantized(DEEPSEEK, "fp8 block"), {"arch": "gfx950", "ep": 2, "num_experts": 6}),
    ("merged experts", LLAMA4, {"arch": "gfx950", "tp": 2}),
    ("microscaled", quantized(QWEN, "quark a4w4"), {"arch": "gfx950", "tp": 2}),
]


@pytest.mark.parametrize(("config", "fields"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_checkpoint_comes_back_byte_for_byte(
    tmp_path: Path, config: dict[str, Any], fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_layer, "CHUNK", 1)
    checkpoint = checkpoint_with_others(tmp_path / "checkpoint", config)
    lay_out_checkpoint(checkpoint, tmp_path / "out", **fields)
    restore_checkpoint(tmp_path / "out", tmp_path / "back", workers=2)
    assert contents(tmp_path / "back") == contents(tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("section", "fields", "lost"),
    [
        ("fp8 block", {"arch": "gfx942", "tp": 2}, "experts.0.gate_proj.weight (fnuz)"),
        ("quark tensor", {"arch": "gfx950", "tp": 2}, "experts.0.gate_proj.weight (requantize_max)"),
    ],
)
def test_what_was_lost_is_named_unless_it_was_kept(
    tmp_path: Path, section: str, fields: dict[str, Any], lost: str
) -> None:
    checkpoint = checkpoint_with_others(tmp_path / "checkpoint", quantized(QWEN, section))
    lay_out_checkpoint(checkpoint, tmp_path / "out", **fields)
    with pytest.raises(LaidOutError, match="cannot be restored") as raised:
        restore_checkpoint(tmp_path / "out", tmp_path / "back")
    assert lost in str(raised.value)
    assert "_scale " not in str(raised.value)  # scales are kept by themselves
    assert not (tmp_path / "back").exists()
    manifest = lay_out_checkpoint(checkpoint, tmp_path / "kept", keep="all", **fields)
    assert manifest.kept
    restore_checkpoint(tmp_path / "kept", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(tmp_path / "checkpoint")


def test_what_cannot_be_restored_leaves_nothing(tmp_path: Path) -> None:
    checkpoint = checkpoint_with_others(tmp_path / "checkpoint")
    lay_out_checkpoint(checkpoint, tmp_path / "without", others=False, tp=2, **A4W4)
    with pytest.raises(LaidOutError, match="without the tensors that are no experts'"):
        restore_checkpoint(tmp_path / "without", tmp_path / "back")
    manifest = lay_out_checkpoint(checkpoint, tmp_path / "out", tp=2, **A4W4)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/model-00001-of-00002.safetensors").write_bytes(b"another model's")
    with pytest.raises(LaidOutError, match="holds model-00001-of-00002"):
        restore_checkpoint(tmp_path / "out", tmp_path / "taken")
    path, tensor = tmp_path / "out" / manifest.ranks[0].file, manifest.ranks[0].tensors[0]
    data = bytearray(path.read_bytes())
    data[tensor.begin] ^= 1
    path.write_bytes(data)
    with pytest.raises(LaidOutError, match="differs from the checkpoint's; nothing was written"):
        restore_checkpoint(tmp_path / "out", tmp_path / "back")
    assert not list((tmp_path / "back").glob("*"))


@pytest.mark.parametrize(
    "changed",
    [{"tp": 4}, {"tp": 1, "ep": 2}, {"activation_dtype": "bf16"}, {"engine": "vllm", "activation_dtype": "bf16"}],
    ids=str,
)
def test_a_conversion_gives_what_the_checkpoint_gives(tmp_path: Path, changed: dict[str, Any]) -> None:
    checkpoint = checkpoint_with_others(tmp_path / "checkpoint")
    lay_out_checkpoint(checkpoint, tmp_path / "out", tp=2, **A4W4)
    convert_laid_out(tmp_path / "out", tmp_path / "new", workers=2, **changed)
    lay_out_checkpoint(checkpoint, tmp_path / "direct", **{**A4W4, "tp": 2, **changed})
    assert contents(tmp_path / "new") == contents(tmp_path / "direct")


def test_a_conversion_repeats_a_loss_or_refuses_it(tmp_path: Path) -> None:
    checkpoint = checkpoint_with_others(tmp_path / "checkpoint", quantized(QWEN, "fp8 block"))
    lay_out_checkpoint(checkpoint, tmp_path / "out", arch="gfx942", tp=1)
    convert_laid_out(tmp_path / "out", tmp_path / "new", tp=2)
    lay_out_checkpoint(checkpoint, tmp_path / "direct", arch="gfx942", tp=2)
    assert contents(tmp_path / "new") == contents(tmp_path / "direct")
    with pytest.raises(LaidOutError, match=r"cannot be restored.*\(fnuz\)"):
        restore_checkpoint(tmp_path / "new", tmp_path / "back")
    with pytest.raises(LaidOutError, match=r"cannot be converted.*w13_weight \(fnuz\)"):
        convert_laid_out(tmp_path / "out", tmp_path / "refused", arch="gfx950")
    assert not (tmp_path / "refused").exists()
    with pytest.raises(NoRecipeError, match="tp 3"):
        convert_laid_out(tmp_path / "out", tmp_path / "refused", tp=3)
    with pytest.raises(LaidOutError, match="itself"):
        convert_laid_out(tmp_path / "out", tmp_path / "out", tp=2)


def test_damaged_bytes_are_not_converted(tmp_path: Path) -> None:
    """Converted files get checksums of their own, which would hide the damage for ever."""
    manifest = lay_out_checkpoint(checkpoint_with_others(tmp_path / "checkpoint"), tmp_path / "out", tp=2, **A4W4)
    path, tensor = tmp_path / "out" / manifest.ranks[1].file, manifest.ranks[1].tensors[2]
    data = bytearray(path.read_bytes())
    data[tensor.begin + tensor.nbytes // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(LaidOutError, match=f"{path.name}: {tensor.name} is damaged"):
        convert_laid_out(tmp_path / "out", tmp_path / "new", tp=1)
    assert not (tmp_path / "new" / "manifest.json").exists()


def test_a_manifest_leads_to_no_other_folder(tmp_path: Path) -> None:
    lay_out_checkpoint(checkpoint_with_others(tmp_path / "checkpoint"), tmp_path / "out", tp=2, **A4W4)
    path = tmp_path / "out" / "manifest.json"
    written = json.loads(path.read_text())
    (tmp_path / "secret").write_text("s3cret")
    for field, name, value in [
        ("copied", "file", "../secret"),
        ("copied", "file", f"{tmp_path}/secret"),
        ("copied", "file", "source/.."),
        ("sources", "name", "../secret"),
        ("ranks", "file", "source/../../secret"),
    ]:
        first, *rest = written[field]
        path.write_text(json.dumps({**written, field: [{**first, name: value}, *rest]}))
        with pytest.raises(LaidOutError, match=rf"no manifest .*\({field}.0.{name}"):
            convert_laid_out(tmp_path / "out", tmp_path / "new", tp=1)
    path.write_text(json.dumps({**written, "tp": 1_000_000_000}))
    with pytest.raises(LaidOutError, match="other ranks than its tp=1000000000"):
        verify_laid_out(tmp_path / "out")
