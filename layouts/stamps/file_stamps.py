"""Stamps of memory-mapped files, in a sidecar ``FILE.preshuffle``.

Any process can read what the file's bytes are, whatever became of the process that wrote them. The record's digest is
compared with the file at every reading: neither its inode nor its times prove that its bytes are still the same. An
attribute of the file names its record, so that a hard link or another name leads to it. Shared memory keeps the record
in the attribute itself.

The record is written and synchronised before the first byte of a move and again after its last one, so that a process
that is killed half-way leaves a file which is known to be broken.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from preshuffle.layouts.stamps.inode_marks import (
    is_shared_memory,
    read_pointer,
    read_stamps_of_memory,
    takes_pointers,
    write_pointer,
    write_stamps_of_memory,
)
from preshuffle.layouts.stamps.samples import digest_of, sample_file
from preshuffle.registry import LayoutError

SUFFIX: Final = ".preshuffle"
_VERSION: Final = 1

Extent = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """Stamp of one byte range of a file.

    Attributes:
        stamp: the stamp's JSON.
        settled: whether the bytes stay as they are now; their digest is stored then, and compared from then on.
    """

    stamp: str
    settled: bool


def record_of(path: Path) -> Path:
    """Return the path of a file's record.

    Beside the file, or where the file's attribute says: it has got another name since, or several.
    """
    beside = path.with_name(path.name + SUFFIX)
    if is_shared_memory(path) or beside.exists():
        return beside
    named = read_pointer(path) if takes_pointers(path) else _record_with_inode(path)
    return named if named is not None and named.is_file() else beside


def _record_with_inode(path: Path) -> Path | None:
    """Return the record in a file's folder that names its inode, where files have no attributes."""
    for record in sorted(path.parent.glob(f"*{SUFFIX}")):
        with suppress(OSError, ValueError, RecursionError, AttributeError):
            if json.loads(record.read_text()).get("inode") == path.stat().st_ino:
                return record
    return None


def describe_record(path: Path) -> str:
    """Return where a file's record is, for messages."""
    return f"the attributes of {path}" if is_shared_memory(path) else str(record_of(path))


def read_stamps(path: Path) -> dict[Extent, str]:
    """Return the stamps of a file by byte range.

    Empty where there is no record. A laid-out range without a digest (it was lent to somebody who writes it) is
    returned as ``unknown``.

    Raises:
        LayoutError: the record is damaged, or of other bytes than the file holds.
    """
    found = _read(path)
    if not found:
        return {}
    size = path.stat().st_size
    stamps: dict[Extent, str] = {}
    for begin, end, entry in _entries(found):
        stamp, digest = entry["stamp"], entry["digest"]
        if end > size or digest not in (None, digest_of(sample_file(path, (begin, end)))):
            raise LayoutError(
                f"{describe_record(path)} does not match the bytes of {path}: remove it if the file was rewritten"
            )
        if digest is None and isinstance(stamp, dict) and stamp.get("state") == "applied":
            stamp = {**stamp, "state": "unknown"}
        stamps[begin, end] = json.dumps(stamp)
    return stamps


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
                    digest = digest_of(sample_file(path, (begin, end))) if entry.settled else None
                    known[begin, end] = {"stamp": json.loads(entry.stamp), "digest": digest}
            _write(path, known)
    except OSError as error:
        raise LayoutError(
            f"{describe_record(path)} cannot be written ({error.strerror}); "
            "without it an interrupted move could not be detected"
        ) from None


def _read(path: Path) -> dict[str, Any]:
    record = describe_record(path)
    try:
        text = read_stamps_of_memory(path) if is_shared_memory(path) else record_of(path).read_text()
        found: dict[str, Any] = json.loads(text) if text or not is_shared_memory(path) else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise LayoutError(f"{record} cannot be read: {error}") from None
    try:
        if found and (found["version"] != _VERSION or not isinstance(found["inode"], int)):
            raise ValueError(f"version {found['version']}; valid: {_VERSION}")
        _entries(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LayoutError(f"{record} is no record of stamps: {type(error).__name__} {error}") from None
    return found


def _entries(found: dict[str, Any]) -> list[tuple[int, int, dict[str, Any]]]:
    entries = found.get("bytes", [])
    return [(int(entry["begin"]), int(entry["end"]), {k: entry[k] for k in ("stamp", "digest")}) for entry in entries]


def _write(path: Path, known: Mapping[Extent, dict[str, Any]]) -> None:
    inode = path.stat().st_ino
    entries = [{"begin": begin, "end": end, **entry} for (begin, end), entry in sorted(known.items())]
    content = {"version": _VERSION, "inode": inode, "bytes": entries}
    if is_shared_memory(path):
        write_stamps_of_memory(path, json.dumps(content) if known else "")
        return
    record = record_of(path)
    if record.parent != path.parent or record.name != path.name + SUFFIX:
        record = record if _read(path).get("inode") == inode else path.with_name(path.name + SUFFIX)
    if not known:
        record.unlink(missing_ok=True)
        write_pointer(path, None)
        _synchronise(record.parent)
        return
    draft = record.with_name(f"{record.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(content, indent=1) + "\n")
        _synchronise(draft)
        os.replace(draft, record)
    finally:
        draft.unlink(missing_ok=True)
    write_pointer(path, record.absolute())
    _synchronise(record.parent)


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
