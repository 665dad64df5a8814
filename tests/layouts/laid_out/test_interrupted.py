"""Runs that are killed, run out of room, or lose their source: nothing looks whole, and the same command resumes."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from preshuffle.layouts import CheckpointError
from preshuffle.layouts.laid_out import (
    LaidOutError,
    RunEvent,
    lay_out_checkpoint,
    open_laid_out,
    verify_laid_out,
)
from preshuffle.layouts.laid_out.files.progress import Progress
from support.tensors.laid_out import assert_named_files_are_whole, contents
from support.tensors.lay_out_process import FIELDS, lay_out_in_process


def assert_nothing_looks_whole(out: Path, whole: dict[str, bytes]) -> None:
    """Files under their own names are whole; without the manifest nothing reads the folder."""
    assert_named_files_are_whole(out, whole)
    if not (out / "manifest.json").exists():
        with pytest.raises(LaidOutError, match=r"unfinished|cannot be read"):
            verify_laid_out(out)
        with pytest.raises(LaidOutError, match=r"unfinished|cannot be read"):
            open_laid_out(out, 0)


def resumes(checkpoint: Path, out: Path, whole: dict[str, bytes]) -> list[RunEvent]:
    events: list[RunEvent] = []
    lay_out_checkpoint(checkpoint, out, listener=events.append, **FIELDS)
    assert contents(out) == whole
    return events


def killed_at(checkpoint: Path, out: Path, step: int, whole: dict[str, bytes]) -> bool:
    """Kill a run at a step; return whether it was reached."""
    done = lay_out_in_process(checkpoint, out, "--at", step)
    if done.returncode == 0:
        return False
    assert done.returncode == -signal.SIGKILL, done.stderr
    if out.exists():
        assert_nothing_looks_whole(out, whole)
    return True


def test_a_killed_run_resumes(checkpoint: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    assert killed_at(checkpoint, tmp_path / "out", 90, whole)
    before = {path.name for path in (tmp_path / "out").glob("*.safetensors")}
    events = resumes(checkpoint, tmp_path / "out", whole)
    assert {one.file for one in events if one.event == "resumed"} == before
    assert verify_laid_out(tmp_path / "out", full=True).verdict == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, 12))
def test_kills_at_every_eleventh_step(first: int, checkpoint: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    step = first
    while killed_at(checkpoint, tmp_path / str(step), step, whole):
        resumes(checkpoint, tmp_path / str(step), whole)
        shutil.rmtree(tmp_path / str(step))
        step += 11
    assert step > 100


def test_a_limit_on_file_sizes_is_a_clean_error(checkpoint: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(LaidOutError, match="cannot be written: File too large; make room and run the same"):
            lay_out_checkpoint(checkpoint, tmp_path / "out", **FIELDS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert_nothing_looks_whole(tmp_path / "out", whole)
    resumes(checkpoint, tmp_path / "out", whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_a_clean_error(
    checkpoint: Path, small_disk: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = small_disk / "out"
    with pytest.raises(LaidOutError, match=r"bytes are needed, and .* are free; nothing was written"):
        lay_out_checkpoint(checkpoint, out, **FIELDS)
    monkeypatch.setattr("preshuffle.layouts.laid_out.whole_checkpoint.check_room", lambda *_: None)
    with pytest.raises(LaidOutError, match="No space left on device; make room"):
        lay_out_checkpoint(checkpoint, out, **FIELDS)
    assert not list(out.rglob("*.partial"))
    assert_nothing_looks_whole(out, whole)


def copy_of(checkpoint: Path, folder: Path) -> Path:
    shutil.copytree(checkpoint, folder)
    return folder


def test_a_shard_that_was_cut_short(checkpoint: Path, tmp_path: Path) -> None:
    source = copy_of(checkpoint, tmp_path / "checkpoint")
    path = source / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002.*cut short: it has"):
        lay_out_checkpoint(source, tmp_path / "out", **FIELDS)


@pytest.mark.parametrize("change", ["cut short", "rewritten"])
def test_a_shard_that_changes_meanwhile(
    checkpoint: Path, tmp_path: Path, whole: dict[str, bytes], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes between two chunks of the only thread that reads: within one, Linux ends the process."""
    monkeypatch.setattr(Progress, "EVERY", 0.0)
    seen: set[str] = set()
    source = copy_of(checkpoint, tmp_path / "checkpoint")
    path = source / "model-00002-of-00002.safetensors"
    data = path.read_bytes()

    def disturb(event: RunEvent) -> None:
        if event.event == "advanced" and seen == {"file"}:
            seen.add("changed")
            if change == "cut short":
                os.truncate(path, len(data) // 3)
            else:
                path.write_bytes(data[:-8] + bytes(8))
        elif event.event == "file":
            seen.add("file")

    with pytest.raises(CheckpointError, match="model-00002-of-00002"):
        lay_out_checkpoint(source, tmp_path / "out", workers=1, listener=disturb, **FIELDS)
    assert_nothing_looks_whole(tmp_path / "out", whole)
    if change == "rewritten":
        with pytest.raises(CheckpointError, match=r"is not the file that the run .* began with"):
            lay_out_checkpoint(source, tmp_path / "out", **FIELDS)
    path.write_bytes(data)
    resumes(source, tmp_path / "out", whole)


def test_shards_of_several_checkpoints(checkpoint: Path, tmp_path: Path) -> None:
    source = copy_of(checkpoint, tmp_path / "checkpoint")
    shutil.copy(source / "model-00001-of-00002.safetensors", source / "model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="shards of several checkpoints"):
        lay_out_checkpoint(source, tmp_path / "out", **FIELDS)
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_another_command_does_not_resume(checkpoint: Path, tmp_path: Path) -> None:
    def stop(event: RunEvent) -> None:
        if event.event == "file":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lay_out_checkpoint(checkpoint, tmp_path / "out", listener=stop, **FIELDS)
    for fields in ({"tp": 1}, {"activation_dtype": "bf16"}):
        with pytest.raises(LaidOutError, match=r"another run|differs in"):
            lay_out_checkpoint(checkpoint, tmp_path / "out", **{**FIELDS, **fields})


def test_two_runs_at_once(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / ".unfinished").mkdir(parents=True)
    with (tmp_path / "out" / ".unfinished" / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(LaidOutError, match="another process writes it"):
            lay_out_checkpoint(checkpoint, tmp_path / "out", **FIELDS)


def test_a_damaged_file_of_an_earlier_run(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rank-tp0-ep0-layer-00000.safetensors").write_bytes(b"nothing")
    with pytest.raises(LaidOutError, match="is there, and not what a run writes"):
        lay_out_checkpoint(checkpoint, tmp_path / "out", **FIELDS)
