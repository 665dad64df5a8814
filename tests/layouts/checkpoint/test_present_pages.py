"""Pages of mapped files: mapped once for several readers, given back, and missed where the file ends before."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from preshuffle.layouts.checkpoint import CheckpointError, MappedShards, advise
from preshuffle.layouts.checkpoint import present_pages as module

ROWS = 64
NAMES = ("a", "b", "c")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []

    def counted(mapped: mmap.mmap, advice: int, begin: int, end: int) -> None:
        found.append(advice)
        advise(mapped, advice, begin, end)

    monkeypatch.setattr(module, "advise", counted)
    return found


def written(folder: Path) -> Path:
    path = folder / "model.safetensors"
    save_file({name: torch.randint(0, 256, (ROWS, 512), dtype=torch.uint8) for name in NAMES}, path)
    return path


def columns(shards: MappedShards, path: Path, name: str, first: int) -> torch.Tensor:
    with shards.reading() as reading:
        return reading.tensor(path, name)[:, first : first + 64].clone()


def test_columns_of_the_same_rows_are_mapped_once(tmp_path: Path, calls: list[int]) -> None:
    path, shards = written(tmp_path), MappedShards()
    taken = torch.cat([columns(shards, path, "a", first) for first in range(0, 512, 64)], 1)
    with shards.reading() as reading:
        assert reading.tensor(path, "a")[:].equal(taken)
    assert calls == [module._POPULATE_READ, module._POPULATE_READ, mmap.MADV_DONTNEED]


def test_others_push_kept_pages_out(tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 2 * (ROWS * 512 + mmap.PAGESIZE))
    path, shards = written(tmp_path), MappedShards()
    for name in NAMES:
        columns(shards, path, name, 0)
    assert calls.count(mmap.MADV_DONTNEED) == 1
    columns(shards, path, "b", 64)
    assert calls.count(module._POPULATE_READ) == 3
    columns(shards, path, "a", 64)
    assert calls.count(module._POPULATE_READ) == 4


def test_a_file_cut_short_between_readers_is_an_error(tmp_path: Path) -> None:
    path, shards = written(tmp_path), MappedShards()
    columns(shards, path, "a", 0)
    os.truncate(path, 4096)
    with pytest.raises(CheckpointError, match="cut short"):
        columns(shards, path, "a", 64)


def test_a_forgotten_file_is_mapped_anew(tmp_path: Path, calls: list[int]) -> None:
    path, shards = written(tmp_path), MappedShards()
    columns(shards, path, "a", 0)
    shards.forget(path)
    columns(shards, path, "a", 0)
    assert calls == [module._POPULATE_READ] * 2
