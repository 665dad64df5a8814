"""Sources that were written to without a trace in size and modification time."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from preshuffle.layouts import CheckpointError
from preshuffle.layouts.laid_out import RunEvent, StaleError, lay_out_checkpoint
from preshuffle.layouts.laid_out.runs import sources
from preshuffle.layouts.stamps import digest_file
from support.tensors.lay_out_process import FIELDS

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(checkpoint, tmp_path / "copied")
    return tmp_path / "copied"


def change_silently(path: Path) -> None:
    """Change the last byte in place; size, inode and modification time stay."""
    before = os.stat(path)
    with path.open("rb+") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)[0]
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)


def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []
    whole = digest_file

    def reading(path: Path, *arguments: Any) -> str:
        read.append(path.name)
        return whole(path, *arguments)

    monkeypatch.setattr(sources, "digest_file", reading)
    return read


def test_a_finished_run_hashes_what_was_written_to(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out_checkpoint(copied, tmp_path / "out", **FIELDS)
    os.link(copied / SHARD, tmp_path / "another-name")  # sets the time of change, and no byte
    read, events = hashed(monkeypatch), list[RunEvent]()
    lay_out_checkpoint(copied, tmp_path / "out", listener=events.append, **FIELDS)
    assert SHARD in read
    assert not [event for event in events if event.event == "file"]
    change_silently(copied / SHARD)
    with pytest.raises(StaleError, match="made of another checkpoint"):
        lay_out_checkpoint(copied, tmp_path / "out", **FIELDS)


def test_a_resumed_run_hashes_what_was_written_to(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped_at(kind: str) -> None:
        def stop(event: RunEvent) -> None:
            if event.event == kind:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            lay_out_checkpoint(copied, tmp_path / "out", listener=stop, **{**FIELDS, "workers": 1})

    stopped_at("file")
    with monkeypatch.context() as patch:
        read = hashed(patch)
        stopped_at("resumed")
        assert SHARD not in read
    change_silently(copied / SHARD)
    with pytest.raises(CheckpointError, match=f"{SHARD}: is not the file that the run in .* began with"):
        lay_out_checkpoint(copied, tmp_path / "out", **FIELDS)
    assert not (tmp_path / "out" / "manifest.json").exists()
