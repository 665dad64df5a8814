"""Extended attributes of files that say where their stamps are.

An attribute belongs to the file, not to a name of it: it is found through every hard link, follows a rename, and dies
with the file. Shared memory (``/dev/shm``) holds the stamps themselves in it, so that nothing is left beside it.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

_SHARED_MEMORY: Final = Path("/dev/shm")
POINTER: Final = "user.preshuffle.record"
_STAMPS: Final = "user.preshuffle.stamps"
_ABSENT: Final = (errno.ENODATA, errno.ENOENT)


def is_shared_memory(path: Path) -> bool:
    """Return whether a file is shared memory, which dies with its users."""
    try:
        return os.stat(path).st_dev == _shared_memory_device()
    except OSError:
        return False


def read_pointer(path: Path) -> Path | None:
    """Return the record that a file's attribute names, or None."""
    text = _read(path, POINTER)
    return Path(os.fsdecode(text)) if text else None


def takes_pointers(path: Path) -> bool:
    """Return whether a file's system has attributes."""
    try:
        os.getxattr(path, POINTER)
    except OSError as error:
        return error.errno in _ABSENT
    return True


def write_pointer(path: Path, record: Path | None) -> None:
    """Name a file's record in its attribute; None removes it.

    Silent where the file system has no attributes.
    """
    with suppress(OSError):
        if record is not None:
            os.setxattr(path, POINTER, os.fsencode(record))
        elif read_pointer(path) is not None:
            os.removexattr(path, POINTER)


def read_stamps_of_memory(path: Path) -> str:
    """Return the text of the stamps of shared memory, empty without any."""
    return (_read(path, _STAMPS) or b"").decode()


def write_stamps_of_memory(path: Path, text: str) -> None:
    """Store the text of shared memory's stamps; an empty one removes it.

    Raises:
        OSError: the attribute cannot be written.
    """
    if text:
        os.setxattr(path, _STAMPS, text.encode())
    elif _read(path, _STAMPS) is not None:
        os.removexattr(path, _STAMPS)


# Process-wide: the running kernel's.
@lru_cache(maxsize=1)
def marks_shared_memory() -> bool:
    """Return whether shared memory takes extended attributes (Linux 6.6)."""
    try:
        os.getxattr(_SHARED_MEMORY, _STAMPS)
    except OSError as error:
        return error.errno in _ABSENT
    return True


def _read(path: Path, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name)
    except OSError:
        return None


@lru_cache(maxsize=1)
def _shared_memory_device() -> int | None:
    try:
        return os.stat(_SHARED_MEMORY).st_dev
    except OSError:
        return None
