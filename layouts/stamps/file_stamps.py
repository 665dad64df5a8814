"""Stamps of memory-mapped files, in a sidecar ``FILE.preshuffle``.

Any process can read what the file's bytes are, whatever became of the process that wrote them.

The record is written and synchronised before the first byte of a move and again after its last one, so that a process
that is killed half-way leaves a file which is known to be broken.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from preshuffle.registry import LayoutError

SUFFIX: Final = ".preshuffle"
_VERSION: Final = 1
_SAMPLES: Final = 256
_SAMPLE_BYTES: Final = 64

Extent = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """Stamp of one byte range of a file.

    Attributes:
        stamp: the stamp's JSON.
        settled: whether the bytes stay as they are now; their digest is kept then, so that a copy of the file is known.
    """

    stamp: str
    settled: bool


def record_of(path: Path) -> Path:
    """Return the path of a file's sidecar record."""
    return path.with_name(path.name + SUFFIX)


def read_stamps(path: Path) -> dict[Extent, str]:
    """Return the stamps of a file by byte range.

    Empty where there is no record.

    Raises:
        LayoutError: the record is damaged, or of other bytes than the file holds.
    """
    found = _read(path)
    if not found:
        return {}
    status = path.stat()
    for begin, end, entry in _entries(found):
        same = found["inode"] == status.st_ino or entry["digest"] is None
        if end > status.st_size or not (same or entry["digest"] == _digest(path, (begin, end))):
            raise LayoutError(
                f"{record_of(path)} does not match the bytes of {path}: remove it if the file was rewritten"
            )
    return {(begin, end): json.dumps(entry["stamp"]) for begin, end, entry in _entries(found)}


def write_stamps(path: Path, changes: Mapping[Extent, Entry | None]) -> None:
    """Replace the stamps of byte ranges in a file's record.

    None removes a stamp. The file's own bytes are synchronised to disk first.

    Raises:
        LayoutError: the record is damaged, or cannot be written.
    """
    try:
        with _locked(path) as file:
            os.fsync(file)
            known = {(begin, end): entry for begin, end, entry in _entries(_read(path))}
            for (begin, end), entry in changes.items():
                known = {(b, e): record for (b, e), record in known.items() if e <= begin or end <= b}
                if entry is not None:
                    digest = _digest(path, (begin, end)) if entry.settled else None
                    known[begin, end] = {"stamp": json.loads(entry.stamp), "digest": digest}
            _write(path, known)
    except OSError as error:
        raise LayoutError(
            f"{record_of(path)} cannot be written ({error.strerror}); "
            "without it an interrupted move could not be detected"
        ) from None


def _read(path: Path) -> dict[str, Any]:
    record = record_of(path)
    try:
        found: dict[str, Any] = json.loads(record.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LayoutError(f"{record} cannot be read: {error}") from None
    try:
        if found["version"] != _VERSION or not isinstance(found["inode"], int):
            raise ValueError(f"version {found['version']}; valid: {_VERSION}")
        _entries(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LayoutError(f"{record} is no record of stamps: {type(error).__name__} {error}") from None
    return found


def _entries(found: dict[str, Any]) -> list[tuple[int, int, dict[str, Any]]]:
    entries = found.get("bytes", [])
    return [(int(entry["begin"]), int(entry["end"]), {k: entry[k] for k in ("stamp", "digest")}) for entry in entries]


def _write(path: Path, known: Mapping[Extent, dict[str, Any]]) -> None:
    record = record_of(path)
    if not known:
        record.unlink(missing_ok=True)
        _synchronise(path.parent)
        return
    entries = [{"begin": begin, "end": end, **entry} for (begin, end), entry in sorted(known.items())]
    text = json.dumps({"version": _VERSION, "inode": path.stat().st_ino, "bytes": entries}, indent=1)
    draft = record.with_name(f"{record.name}.{os.getpid()}")
    try:
        draft.write_text(text + "\n")
        _synchronise(draft)
        os.replace(draft, record)
    finally:
        draft.unlink(missing_ok=True)
    _synchronise(path.parent)


def _synchronise(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Lock the file exclusively.

    Two processes that write parts of it do not lose each other's records.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _digest(path: Path, extent: Extent) -> str:
    """Return a digest of samples spread over a byte range."""
    begin, end = extent
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        for number in range(_SAMPLES):
            at = begin + number * max(end - begin - _SAMPLE_BYTES, 0) // (_SAMPLES - 1)
            digest.update(os.pread(file.fileno(), min(_SAMPLE_BYTES, end - at), at))
    return digest.hexdigest()
