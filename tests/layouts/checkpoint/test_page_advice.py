"""Files that the system is asked to read, unless it holds them."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from preshuffle.layouts import CheckpointError
from preshuffle.layouts.checkpoint import map_file
from preshuffle.layouts.stamps import state_of_file

SIZE = 64 * mmap.PAGESIZE


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    real = os.posix_fadvise

    def counted(descriptor: int, offset: int, length: int, advice: int) -> None:
        found.append(advice)
        real(descriptor, offset, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", counted)
    return found


def written(folder: Path) -> Path:
    path = folder / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


def test_a_file_in_memory_is_not_asked_for(tmp_path: Path, advised: list[int]) -> None:
    path = written(tmp_path)
    mapped, state = map_file(path, ahead=True)
    assert (mapped[:], state) == (path.read_bytes(), state_of_file(path))
    assert advised == []


def test_a_file_that_may_be_on_the_disk_is_asked_for(
    tmp_path: Path, advised: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(descriptor: int, buffers: list[bytearray], place: int, flags: int) -> int:
        raise BlockingIOError(11, "not in memory")

    monkeypatch.setattr(os, "preadv", absent)
    path = written(tmp_path)
    assert map_file(path, ahead=True)[0][:] == path.read_bytes()
    assert advised == [os.POSIX_FADV_WILLNEED]
    assert map_file(path)[0][:] == path.read_bytes()
    assert len(advised) == 1


def test_small_files_are_mapped_and_empty_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert map_file(path, ahead=True)[0][:] == b"abc"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be mapped"):
        map_file(path, ahead=True)
