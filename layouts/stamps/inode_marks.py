"""What inodes say of files: their state, and attributes of ours.

An attribute belongs to the file, not to a name of it: it is found through every hard link, follows a rename, and dies
with the file. One says where a file's stamps are; shared memory (``/dev/shm``) holds the stamps themselves in it, so
that nothing is left beside it. Another remembers the states that other files had, so that bytes which were compared
once need not be compared again: a copy has neither.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

_SHARED_MEMORY: Final = Path("/dev/shm")
POINTER: Final = "user.preshuffle.record"
_STAMPS: Final = "user.preshuffle.stamps"
_STATES: Final = "user.preshuffle.states"
_ABSENT: Final = (errno.ENODATA, errno.ENOENT)

FileState = tuple[int, int, int, int]
"""Size, time of modification in nanoseconds, inode, and time of change (``ctime``), which nobody can set back."""


def state_of_file(path: Path | int) -> FileState:
    """Return what tells whether a file's bytes were written since.

    Args:
        path: of the file, or its descriptor.

    Raises:
        OSError: it is not there.
    """
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns


def remember_states(bearer: Path, states: Mapping[str, FileState]) -> None:
    """Record the states of files in an attribute of another file.

    Silent where the file system has no attributes.

    Args:
        bearer: gets the attribute; another one that replaces it has none.
        states: by the files' names.
    """
    with suppress(OSError):
        os.setxattr(bearer, _STATES, _hashed(states))


def remembers_states(bearer: Path, states: Mapping[str, FileState]) -> bool:
    """Return whether all files are in the states that were recorded."""
    return _read(bearer, _STATES) == _hashed(states)


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


def _hashed(states: Mapping[str, FileState]) -> bytes:
    text = json.dumps(sorted((name, *state) for name, state in states.items()))
    return blake2b(text.encode(), digest_size=16).hexdigest().encode()


@lru_cache(maxsize=1)
def _shared_memory_device() -> int | None:
    try:
        return os.stat(_SHARED_MEMORY).st_dev
    except OSError:
        return None
