"""Pages of mapped files: mapped once for several readers, given back, and missed where the file ends before."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import save_file

from preshuffle.layouts.checkpoint import CheckpointError, MappedShards, advise, map_file
from preshuffle.layouts.checkpoint import present_pages as module
from preshuffle.layouts.checkpoint.present_pages import PageRange, PresentPages

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


MIB = 1 << 20


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What is given back, as ``(begin, end)``."""
    found: list[tuple[int, int]] = []

    def noted(mapped: mmap.mmap, advice: int, begin: int, end: int) -> None:
        advise(mapped, advice, begin, end)
        if advice == mmap.MADV_DONTNEED:
            found.append((begin, end))

    monkeypatch.setattr(module, "advise", noted)
    return found


def mapped_file(folder: Path, nbytes: int) -> mmap.mmap:
    path = folder / "bytes"
    path.write_bytes(bytes(nbytes))
    return map_file(path)[0]


def test_pages_that_linux_maps_beside_are_given_back(tmp_path: Path, around: list[tuple[int, int]]) -> None:
    mapped, pages = mapped_file(tmp_path, 9 * MIB + 5), PresentPages()
    some = [PageRange.of(mapped, 4 * MIB, 4 * MIB + 10, False), PageRange.of(mapped, 5 * MIB, 9 * MIB + 5, False)]
    for one in some:
        pages.acquire(one)
    pages.release(some)
    assert around == [(2 * MIB, 6 * MIB + mmap.PAGESIZE), (6 * MIB + mmap.PAGESIZE, 9 * MIB + 5)]


def test_pages_that_others_read_are_left(tmp_path: Path, around: list[tuple[int, int]]) -> None:
    mapped, pages = mapped_file(tmp_path, 12 * MIB), PresentPages()
    mine = PageRange.of(mapped, 4 * MIB, 6 * MIB, False)
    read = [PageRange.of(mapped, MIB, 3 * MIB + 1, False), PageRange.of(mapped, 6 * MIB, 7 * MIB, True)]
    for one in (mine, *read):
        pages.acquire(one)
    pages.release([mine])
    assert around == [(3 * MIB + mmap.PAGESIZE, 6 * MIB), (7 * MIB, 8 * MIB)]


def test_what_is_given_back_is_what_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AROUND", 2)
    monkeypatch.setattr(module, "_PAGE", 1)
    random = Random(7)

    def ranges(count: int) -> list[tuple[int, int]]:
        begins = [random.randrange(40) for _ in range(count)]
        return sorted((begin, min(40, begin + random.randrange(1, 9))) for begin in begins)

    for _ in range(500):
        dropped, read = ranges(random.randrange(4)), ranges(random.randrange(4))
        found = list(module._without(dropped, read, 40))
        wanted = {place for begin, end in dropped for place in range(max(0, begin - 2), min(40, end + 2))}
        wanted -= {place for begin, end in read for place in range(begin, end)}
        places = [place for begin, end in found for place in range(begin, end)]
        assert places == sorted(wanted)
