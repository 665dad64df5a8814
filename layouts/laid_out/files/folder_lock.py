"""Locks of an output folder, in files below its unfinished work."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from preshuffle.layouts.laid_out.files.manifest import WORK
from preshuffle.layouts.laid_out.files.tensor_writer import unique_partial, writing

_BUSY: Final = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def locked(out: Path, name: str, kind: int, *, wait: bool = False) -> Iterator[bool]:
    """Lock a folder by a file; yield whether that succeeded.

    Where a file system has no locks, nothing is locked: files have names of their own while they are written, so that
    two runs at once waste time and nothing else.

    Args:
        out: created if needed.
        name: of the lock.
        kind: ``fcntl.LOCK_SH`` or ``fcntl.LOCK_EX``.
        wait: until it is free.

    Raises:
        LaidOutError: the folder cannot be made.
    """
    handle = -1
    try:
        while True:
            handle = _opened(out, name)
            free = _lock(handle, kind if wait else kind | fcntl.LOCK_NB)
            if not free or _is_there(handle, out / WORK / name):
                break
            os.close(handle)  # of a run that has finished meanwhile, and removed it
            handle = -1
        yield free
    finally:
        if handle >= 0:
            os.close(handle)


def remove_work(out: Path) -> None:
    """Remove the folder of unfinished work, locks included.

    The folder loses its name first, so that nothing of the next process is removed; but where the disk has no room for
    another name.
    """
    removed = unique_partial(out / WORK)
    try:
        os.rename(out / WORK, removed)
    except FileNotFoundError:
        return
    except OSError:
        removed = out / WORK
    shutil.rmtree(removed, ignore_errors=True)


def _opened(out: Path, name: str) -> int:
    with writing(out):
        while True:
            (out / WORK).mkdir(parents=True, exist_ok=True)
            try:
                return os.open(out / WORK / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:  # a run that finished has just removed the folder
                continue


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind)
    except OSError as error:
        return error.errno not in _BUSY
    return True


def _is_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False
