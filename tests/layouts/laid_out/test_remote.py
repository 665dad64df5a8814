"""Checkpoints on other file systems, with fsspec's in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preshuffle.layouts import CheckpointError
from preshuffle.layouts.laid_out import lay_out_checkpoint
from support.tensors.laid_out import checkpoint_with_others, contents

fsspec = pytest.importorskip("fsspec")
A4W4: dict[str, Any] = {"arch": "gfx950", "activation_dtype": "fp4x2", "tp": 2}


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    checkpoint_with_others(tmp_path / "checkpoint")
    system = fsspec.filesystem("memory")
    system.put(str(tmp_path / "checkpoint"), "/models/small", recursive=True)
    system.pipe("/models/small/pytorch_model.bin", b"not wanted")
    yield "memory://models/small"
    system.rm("/models", recursive=True)


def test_a_remote_checkpoint_gives_what_a_local_one_gives(address: str, tmp_path: Path) -> None:
    lay_out_checkpoint(address, tmp_path / "remote", **A4W4)
    lay_out_checkpoint(tmp_path / "checkpoint", tmp_path / "local", **A4W4)
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")


def test_a_short_read_is_an_error_and_the_next_run_goes_on(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = fsspec.filesystem("memory")
    with monkeypatch.context() as patch:
        whole = type(system).cat_file
        patch.setattr(type(system), "cat_file", lambda self, path, **edges: whole(self, path, **edges)[:-1])
        with pytest.raises(CheckpointError, match=r"came short: \d+ of \d+ bytes"):
            lay_out_checkpoint(address, tmp_path / "out", **A4W4)
    assert not [path for path in (tmp_path / "out").glob("*") if path.name != ".unfinished"]
    assert not list((tmp_path / "out").rglob("*.partial"))
    lay_out_checkpoint(address, tmp_path / "out", **A4W4)
    assert (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / ".unfinished").exists()


def test_what_is_not_there_is_named(address: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"memory://models/none: cannot be read"):
        lay_out_checkpoint("memory://models/none", tmp_path / "out", **A4W4)
    with pytest.raises(CheckpointError, match=r"nosuch://x: cannot be read"):
        lay_out_checkpoint("nosuch://x", tmp_path / "out", **A4W4)
    fsspec.filesystem("memory").rm("/models/small/model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"names model-00002-of-00002.safetensors, which is not there"):
        lay_out_checkpoint(address, tmp_path / "out", **A4W4)
