"""Work that grows with the number of files, and no faster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from preshuffle.layouts import write_checkpoint
from preshuffle.layouts.laid_out import lay_out_checkpoint, verify_laid_out
from preshuffle.layouts.laid_out.files.manifest import FileRecord, LayerPlan, Manifest
from preshuffle.layouts.laid_out.runs.other_tensors import OtherFile
from support.tensors.laid_out import QWEN, quantized


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count looks at ranks, layers and shards, and files opened."""
    looks: dict[str, int] = {"opened": 0}
    patch = pytest.MonkeyPatch()

    def looking(kind: type, name: str) -> None:
        whole: Any = kind.__getattribute__

        def look(self: Any, asked: str) -> Any:
            if asked == name:
                looks[name] = looks.get(name, 0) + 1
            return whole(self, asked)

        patch.setattr(kind, "__getattribute__", look)

    def opening(whole: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            looks["opened"] += 1
            return whole(*arguments, **keywords)

        return call

    looking(FileRecord, "tp_rank")
    looking(LayerPlan, "layers")
    looking(Manifest, "sources")
    for name in ("open", "stat"):
        patch.setattr(os, name, opening(getattr(os, name)))
    try:
        yield looks
    finally:
        patch.undo()


def looks_of(folder: Path, tp: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return looks of a run on a finished folder, and of its verification."""
    fields: dict[str, Any] = {"arch": "gfx950", "tp": tp, "workers": 1}
    lay_out_checkpoint(folder, folder.parent / f"out{tp}", **fields)
    with counted() as finishing:
        lay_out_checkpoint(folder, folder.parent / f"out{tp}", **fields)
    with counted() as verifying:
        assert verify_laid_out(folder.parent / f"out{tp}", samples=1).verdict == "ok"
    return finishing, verifying


def test_finishing_and_verifying_look_at_each_file_so_many_times(tmp_path: Path) -> None:
    sizes = {"num_experts": 2, "hidden_size": 128, "moe_intermediate_size": 1024, "num_hidden_layers": 2}
    write_checkpoint(tmp_path / "in", {**QWEN, **sizes})
    few, some, many = (looks_of(tmp_path / "in", tp) for tp in (2, 4, 8))
    for one, two, four in zip(few, some, many, strict=True):
        for what in one:
            assert four[what] - two[what] <= 2 * (two[what] - one[what]) + 2, what


def test_kept_tensors_are_looked_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each shard is given the names that it holds alone."""
    given: list[int] = []
    whole = OtherFile.of

    def of(kind: str, number: int, count: int, shard: Any, names: set[str]) -> OtherFile:
        if kind == "kept":
            given.append(len(names - set(shard.entries)))
        return whole(kind, number, count, shard, names)

    monkeypatch.setattr(OtherFile, "of", staticmethod(of))
    write_checkpoint(tmp_path / "in", {**quantized(QWEN, "fp8 block"), "num_hidden_layers": 2})
    manifest = lay_out_checkpoint(tmp_path / "in", tmp_path / "out", arch="gfx942", keep="all")
    assert len(manifest.kept) == 2
    assert given == [0, 0]
