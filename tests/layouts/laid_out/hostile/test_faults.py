"""A disk that is full at any step: one error of ours, nothing looks whole, and the same call goes on."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from preshuffle.layouts.laid_out import Manifest, convert_laid_out, lay_out_checkpoint, restore_checkpoint
from preshuffle.registry import PreshuffleError
from support.tensors.laid_out import contents
from support.tensors.lay_out_process import FIELDS

_CALLS = {"pwrite": None, "fsync": None, "rename": 1, "mkdir": 0, "posix_fallocate": None, "ftruncate": None, "link": 1}
"""Functions of ``os`` that write, and which argument is the path."""
_WRITES = os.O_CREAT | os.O_RDWR | os.O_WRONLY


class Disk:
    """A disk below a folder, full from the n-th write on for one call."""

    def __init__(self, folder: Path, at: int) -> None:
        self.folder, self.at, self.count, self.failed = str(folder), at, 0, ""

    def write(self, name: str, path: object) -> None:
        if isinstance(path, str | os.PathLike) and not os.fspath(path).startswith(self.folder):
            return
        self.count += 1
        if self.count == self.at:
            self.failed = f"{name} {path}"
            raise OSError(errno.ENOSPC, "No space left on device")


@contextmanager
def full_at(folder: Path, at: int) -> Iterator[Disk]:
    disk, patch = Disk(folder, at), pytest.MonkeyPatch()

    def counted(name: str, whole: Callable[..., Any], place: int | None) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            disk.write(name, arguments[place] if place is not None else None)
            return whole(*arguments, **keywords)

        return call

    def opened(whole: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **keywords: Any) -> Any:
            if writes(*arguments, **keywords):
                disk.write("open", path)
            return whole(path, *arguments, **keywords)

        return call

    def is_written(mode: str = "r", *rest: Any, **keywords: Any) -> bool:
        return any(letter in mode for letter in "wax+")

    for name, place in _CALLS.items():
        patch.setattr(os, name, counted(name, getattr(os, name), place))
    patch.setattr(os, "open", opened(os.open, lambda flags, *rest, **keywords: bool(flags & _WRITES)))
    patch.setattr(io, "open", opened(io.open, is_written))
    try:
        yield disk
    finally:
        patch.undo()


@pytest.fixture(scope="module")
def made(checkpoint: Path, whole: dict[str, bytes]) -> dict[str, Any]:
    folder = checkpoint.parent
    convert_laid_out(folder / "whole", folder / "converted", tp=1)
    return {
        "apply": (lambda out: lay_out_checkpoint(checkpoint, out, **{**FIELDS, "workers": 1}), whole),
        "convert": (
            lambda out: convert_laid_out(folder / "whole", out, workers=1, tp=1),
            contents(folder / "converted"),
        ),
        "restore": (lambda out: restore_checkpoint(folder / "whole", out), contents(checkpoint)),
    }


def assert_not_whole(task: str, out: Path, wanted: dict[str, bytes]) -> None:
    """Whatever has its own name is as wanted; the last one is missing, or nothing is."""
    found = {name: data for name, data in contents(out).items() if ".unfinished" not in name and ".partial" not in name}
    assert all(data == wanted[name] for name, data in found.items())
    last = "config.json" if task == "restore" else "manifest.json"
    if last in found:
        assert found == wanted
        if task != "restore":
            Manifest.read(out)


def fails_at(made: dict[str, Any], task: str, out: Path, step: int) -> bool:
    """Fill the disk at a step, and go on afterwards; return whether there was such a step."""
    run, wanted = made[task]
    shutil.rmtree(out, ignore_errors=True)
    raised = False
    with full_at(out, step) as disk:
        try:
            run(out)
        except PreshuffleError as error:
            assert "No space left on device" in str(error), disk.failed  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            assert_not_whole(task, out, wanted)
            raised = True
    if raised:
        run(out)
    assert contents(out) == wanted, disk.failed
    return bool(disk.failed)


@pytest.mark.parametrize(("task", "step"), [("apply", 84), ("apply", 100), ("convert", 71), ("restore", 30)])
def test_a_full_disk_at_some_steps(made: dict[str, Any], tmp_path: Path, task: str, step: int) -> None:
    assert fails_at(made, task, tmp_path / "out", step)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["apply", "convert", "restore"])
def test_a_full_disk_at_every_step(made: dict[str, Any], tmp_path: Path, task: str) -> None:
    step = 1
    while fails_at(made, task, tmp_path / "out", step):
        step += 1
    assert step > 30
