"""Checkpoints whose scales have a scale of their own: int4 by channel behind fp8 by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from preshuffle.layouts import CheckpointError, write_checkpoint
from preshuffle.layouts.laid_out import (
    LaidOutError,
    convert_laid_out,
    lay_out_checkpoint,
    restore_checkpoint,
    verify_laid_out,
)
from support.tensors.laid_out import DEEPSEEK, contents, quantized, read_stamped

SECTION = "quark int4 by channel, after fp8 by tensor"
FIELDS: dict[str, Any] = {"arch": "gfx950", "engine": "vllm@0.33.0", "tp": 2, "workers": 1}
SIZES = {"moe_intermediate_size": 512}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int4") / "checkpoint"
    return write_checkpoint(folder, {**quantized(DEEPSEEK, SECTION), **SIZES}).folder


def with_other_names(checkpoint: Path, folder: Path) -> Path:
    """Write the same tensors under the names that SGLang's parameters have."""
    folder.mkdir()
    for path in checkpoint.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors = {key.replace("weight_scale_2", "weight_scale1"): file.get_tensor(key) for key in file.keys()}
        save_file(tensors, folder / path.name)
    for path in checkpoint.glob("*.json"):
        (folder / path.name).write_text(path.read_text().replace("weight_scale_2", "weight_scale1"))
    return folder


def test_either_engines_names_are_read(tmp_path: Path, stored: Path) -> None:
    renamed = with_other_names(stored, tmp_path / "renamed")
    lay_out_checkpoint(stored, tmp_path / "out", **FIELDS)
    lay_out_checkpoint(renamed, tmp_path / "other", **FIELDS)
    for path in (tmp_path / "out").glob("rank-*.safetensors"):
        found, other = read_stamped(path), read_stamped(tmp_path / "other" / path.name)
        assert all(found[name].equal(other[name]) for name in found)


def test_both_scales_are_kept_converted_and_restored(tmp_path: Path, stored: Path) -> None:
    lay_out_checkpoint(stored, tmp_path / "out", **FIELDS)
    convert_laid_out(tmp_path / "out", tmp_path / "one", tp=1, workers=1)
    lay_out_checkpoint(stored, tmp_path / "wanted", **{**FIELDS, "tp": 1})
    assert contents(tmp_path / "one").keys() == contents(tmp_path / "wanted").keys()
    ranks = [path.name for path in (tmp_path / "one").glob("rank-*.safetensors")]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "wanted" / name).read_bytes() for name in ranks)
    assert verify_laid_out(tmp_path / "one", against=stored, full=True).verdict == "ok"
    restore_checkpoint(tmp_path / "one", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(stored)


def test_without_them_nothing_is_restored(tmp_path: Path, stored: Path) -> None:
    lay_out_checkpoint(stored, tmp_path / "out", keep="none", **FIELDS)
    with pytest.raises(LaidOutError, match=r"weight_scale_2 \(fold\)|weight_scale \(fold\)"):
        restore_checkpoint(tmp_path / "out", tmp_path / "back")


def test_a_recipe_without_the_step_is_refused(tmp_path: Path, stored: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gate_proj.weight_scale is a second scale.*Name the engine"):
        lay_out_checkpoint(stored, tmp_path / "out", arch="gfx950", tp=2)
