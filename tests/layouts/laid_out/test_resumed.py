"""Restorations and conversions that are stopped or killed: nothing looks whole, and the same call resumes."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from preshuffle.layouts.laid_out import (
    LaidOutError,
    RunEvent,
    convert_laid_out,
    lay_out_checkpoint,
    restore_checkpoint,
)
from preshuffle.layouts.laid_out.files.progress import Progress
from support.tensors.laid_out import assert_named_files_are_whole, checkpoint_with_others, contents
from support.tensors.lay_out_process import FIELDS, lay_out_in_process


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resumed")
    checkpoint_with_others(folder / "checkpoint")
    lay_out_checkpoint(folder / "checkpoint", folder / "out", **FIELDS)
    convert_laid_out(folder / "out", folder / "converted", tp=4)
    return folder


def stopped_after(out: Path, back: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a restoration after some pieces of work."""
    seen = [0]

    def stop(event: RunEvent) -> None:
        seen[0] += event.event == "advanced"
        if seen[0] >= count:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "EVERY", 0.0)
        with pytest.raises(KeyboardInterrupt):
            restore_checkpoint(out, back, listener=stop)


@pytest.mark.parametrize("count", [1, 9, 20])
def test_a_stopped_restoration_resumes(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    back = tmp_path / "back"
    stopped_after(made / "out", back, count, monkeypatch)
    assert not list(back.glob("*.safetensors"))
    events: list[RunEvent] = []
    restore_checkpoint(made / "out", back, workers=2, listener=events.append)
    assert contents(back) == contents(made / "checkpoint")
    assert bool([event for event in events if event.event == "resumed"]) is (count > 1)


def test_what_a_power_failure_lost_is_written_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = tmp_path / "back"
    stopped_after(made / "out", back, 20, monkeypatch)
    path = back / "model-00001-of-00002.safetensors.partial"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    restore_checkpoint(made / "out", back)
    assert contents(back) == contents(made / "checkpoint")


def test_a_restoration_that_lost_only_its_traces_is_compared(made: Path, tmp_path: Path) -> None:
    back, wanted = tmp_path / "back", contents(made / "checkpoint")
    restore_checkpoint(made / "out", back)
    (back / ".unfinished.0123abcd.partial").mkdir()  # as a run leaves it that is killed at its last step
    (back / ".unfinished.0123abcd.partial" / "lock").touch()
    restore_checkpoint(made / "out", back)
    assert contents(back) == wanted
    path = back / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(LaidOutError, match=r"holds model-00001-of-00002\.safetensors already"):
        restore_checkpoint(made / "out", back)


def test_files_that_are_done_hold_no_descriptors(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(event: RunEvent) -> None:
        if event.event == "advanced":
            seen.append(len(os.listdir("/proc/self/fd")))

    monkeypatch.setattr(Progress, "EVERY", 0.0)
    seen: list[int] = []
    restore_checkpoint(made / "converted", tmp_path / "back", listener=count)
    assert len(list((made / "converted").glob("rank-*.safetensors"))) == 8
    assert max(seen) - seen[0] < 4


def test_where_no_name_has_room_unfinished_work_is_removed_under_its_own(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(old: Path, new: Path) -> None:
        if Path(old).name == ".unfinished":
            raise OSError(28, "No space left on device")
        real(old, new)

    real = os.rename
    monkeypatch.setattr(os, "rename", rename)
    restore_checkpoint(made / "out", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(made / "checkpoint")


def test_an_unfinished_restoration_of_another_checkpoint(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_after(made / "out", tmp_path / "back", 9, monkeypatch)
    with pytest.raises(LaidOutError, match="unfinished restoration of another laid-out checkpoint"):
        restore_checkpoint(made / "converted", tmp_path / "back")
    for folder in (made / "out", made / "out" / "inside"):
        with pytest.raises(LaidOutError, match="or inside it"):
            restore_checkpoint(made / "out", folder)


def test_too_little_room_leaves_nothing(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("preshuffle.layouts.laid_out.runs.output_folder.room_for", lambda folder: 1000)
        with pytest.raises(LaidOutError, match=r"bytes are needed, and 1,000 are free"):
            restore_checkpoint(made / "out", tmp_path / "back")
    assert contents(tmp_path / "back") == {}
    calls = [0]

    def full(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(LaidOutError, match=r"model-00002.*No space left on device; make room"):
            restore_checkpoint(made / "out", tmp_path / "back")
    assert contents(tmp_path / "back") == {}
    restore_checkpoint(made / "out", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(made / "checkpoint")


def test_a_stopped_conversion_resumes(made: Path, tmp_path: Path) -> None:
    def stop(event: RunEvent) -> None:
        if event.event == "file":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_laid_out(made / "out", tmp_path / "new", workers=1, listener=stop, tp=4)
    assert not (tmp_path / "new" / "manifest.json").exists()
    before = {path.name for path in (tmp_path / "new").glob("*.safetensors")}
    events: list[RunEvent] = []
    convert_laid_out(made / "out", tmp_path / "new", listener=events.append, tp=4)
    assert {event.file for event in events if event.event == "resumed"} == before
    assert before
    assert contents(tmp_path / "new") == contents(made / "converted")


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, 8))
@pytest.mark.parametrize(("task", "wanted"), [("restore", "checkpoint"), ("convert", "converted")])
def test_kills_at_every_seventh_step(made: Path, tmp_path: Path, task: str, wanted: str, first: int) -> None:
    step, target = first, tmp_path / "target"
    arguments = (made / "out", target, "--task", task)
    while True:
        done = lay_out_in_process(*arguments, "--at", step)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert_named_files_are_whole(target, contents(made / wanted))
        again = lay_out_in_process(*arguments)
        assert again.returncode == 0, again.stderr
        assert contents(target) == contents(made / wanted)
        shutil.rmtree(target)
        step += 7
    assert step > 7
