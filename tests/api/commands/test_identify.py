"""``preshuffle identify``: a checkpoint, a dump, and what the dump's bytes are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from preshuffle.api.cli import main
from preshuffle.layouts import Checkpoint, apply, apply_layout, write_checkpoint
from preshuffle.registry import Registry
from support.tensors.moe import hf_config

CONFIG = hf_config(layers=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), CONFIG)


@pytest.fixture
def laid(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Layer 1 as rank 1 of 2 holds it."""
    query = Registry.default().query_from_hf_config(checkpoint.folder, arch="gfx950", activation_dtype="bf16", tp=2)
    tensors = checkpoint.rank(1, query, tp_rank=1)
    apply(tensors, Registry.default().resolve(query), last_rank=True)
    return {role: tensor.view(torch.uint8) if "weight" in role else tensor for role, tensor in tensors.items()}


def asked(checkpoint: Checkpoint, live: Path, *more: str) -> list[str]:
    return ["identify", "--plain", str(checkpoint.folder), "--live", str(live), "--layer", "1", *more]


def test_every_tensor_of_a_dump(
    checkpoint: Checkpoint, laid: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(
        {f"model.layers.1.mlp.experts.{role}": tensor for role, tensor in laid.items()}, tmp_path / "a.safetensors"
    )
    assert main(asked(checkpoint, tmp_path, "--tp", "2", "--tp-rank", "1", "--json")) == 0
    found: dict[str, dict[str, Any]] = json.loads(capsys.readouterr().out)["tensors"]
    assert {role: one["layout"] for role, one in found.items()} == {
        "w13_weight": "gui16",
        "w2_weight": "sep16",
        "w13_weight_scale": "e8_gui16",
        "w2_weight_scale": "e8",
        "w13_bias": "plain",
        "w2_bias": "plain",
    }
    for one in found.values():
        assert one["faults"] == []
        assert one["tp_rank"] == 1
        assert one["bytes_read"] <= 1_000_000
    assert found["w13_weight"]["read_as"] == "GUGU"
    assert found["w13_weight"]["gate_mode"] == "interleave"


def test_one_role_and_what_is_wrong_with_it(
    checkpoint: Checkpoint,
    laid: dict[str, torch.Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_file({"w13_weight": apply_layout(laid["w13_weight"].clone(), "gui16")}, tmp_path / "live.safetensors")
    live = tmp_path / "live.safetensors"
    monkeypatch.setenv("COLUMNS", "140")
    assert main(asked(checkpoint, live, "--role", "w13_weight", "--tp", "2", "--tp-rank", "0")) == 1
    out = capsys.readouterr().out
    assert "wrong    gui16 applied twice, tp rank 1 of 2, not the rank that was expected" in out
    assert "load the plain bytes again and lay them out once" in out
    assert main(asked(checkpoint, live, "--role", "w13_weight", "--json")) == 1
    assert json.loads(capsys.readouterr().out)["faults"] == ["applied_twice"]


def test_bare_bytes_need_a_shape(
    checkpoint: Checkpoint, laid: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weight = laid["w2_weight"]
    (tmp_path / "w2.bin").write_bytes(weight.numpy().tobytes())
    live = tmp_path / "w2.bin"
    shape = ",".join(map(str, weight.shape))
    assert main(asked(checkpoint, live, "--role", "w2_weight", "--shape", shape, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "sep16, tp rank 1 of 2"
    assert main(asked(checkpoint, live, "--role", "w2_weight")) == 2
    assert "need a role and a shape" in capsys.readouterr().err
    assert main(asked(checkpoint, live, "--role", "w2_weight", "--shape", "4,160,7")) == 2
    assert "bytes; 4x160x7 of U8 has 4480" in capsys.readouterr().err


def test_the_wrong_layer_is_unknown(
    checkpoint: Checkpoint, laid: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"w13_weight": laid["w13_weight"]}, tmp_path / "live.safetensors")
    command = ["identify", "--plain", str(checkpoint.folder), "--live", str(tmp_path), "--layer", "0"]
    assert main(command) == 3
    assert "unknown" in capsys.readouterr().out


def test_files_of_single_tensors_need_no_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = torch.randint(0, 256, (2, 64, 128), dtype=torch.uint8)
    save_file({"weights": plain}, tmp_path / "plain.safetensors")
    save_file({"x": apply_layout(plain, "sep16")}, tmp_path / "live.safetensors")
    paths = ["identify", "--plain", str(tmp_path / "plain.safetensors"), "--live", str(tmp_path / "live.safetensors")]
    assert main([*paths, "--role", "w2_weight", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layout"] == "sep16"
    assert main([*paths, "--role", "w2_weight", "--live-tensor", "y"]) == 2
    assert "no tensor is called y; found: x" in capsys.readouterr().err
    assert main(paths) == 2
    assert "no tensor is called any role" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--role", "w13_wieght"], "did you mean w13_weight?"),
        (["--layer", "x"], "--layer 'x'"),
        (["--layer", "2"], "layer 2; valid: 0..1"),
        (["--tp", "0"], "--tp '0'"),
        (["--tp", "2", "--tp-rank", "2"], "--tp-rank 2; valid: 0..1"),
        (["--gate-up-order", "GUUG"], "valid: GGUU, GUGU"),
        (["--shape", "1,x"], "valid: E,ROWS,K"),
        (["--live", "/nowhere.safetensors"], "cannot be read"),
        (["--plain", "/nowhere"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line(
    checkpoint: Checkpoint, tmp_path: Path, more: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"w13_weight": torch.zeros(2, 2, 2, dtype=torch.uint8)}, tmp_path / "live.safetensors")
    assert main([*asked(checkpoint, tmp_path / "live.safetensors"), *more]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 4, b"\xff" * 16, (5).to_bytes(8, "little") + b"[1,2]", (4).to_bytes(8, "little") + b"{{{{"],
)
def test_files_that_are_no_safetensors(
    content: bytes, checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "live.safetensors").write_bytes(content)
    assert main(asked(checkpoint, tmp_path / "live.safetensors")) == 2
    assert "not a safetensors file" in capsys.readouterr().err


def test_a_tensor_that_is_cut_short(checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"w13_weight": torch.zeros(4, 960, 80, dtype=torch.uint8)}, tmp_path / "live.safetensors")
    content = (tmp_path / "live.safetensors").read_bytes()
    (tmp_path / "live.safetensors").write_bytes(content[:-1])
    assert main(asked(checkpoint, tmp_path / "live.safetensors")) == 2
    assert "is cut short" in capsys.readouterr().err
