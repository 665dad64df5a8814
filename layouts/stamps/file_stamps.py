"""Stamps of memory-mapped files, in a sidecar ``FILE.preshuffle``.

Any process can read what the file's bytes are, whatever became of the process that wrote them. The record's digest of a
sample is compared with the file at every reading, and that of all bytes before they are moved: neither its inode nor
its times prove that its bytes are still the same. An attribute of the file names its record, so that a hard link or
another name leads to it. Shared memory keeps the record in the attribute itself.

The record is written and synchronised before the first byte of a move and again after its last one, so that a process
that is killed half-way leaves a file which is known to be broken.
"""

from __future__ import annotations

import fcntl
import json
import os
import weakref
from collections.abc import Iterator
from collections.abc import Mapping as Map
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from preshuffle.layouts.stamps.digests import digest_file
from preshuffle.layouts.stamps.inode_marks import (
    POINTER,
    is_shared_memory,
    read_pointer,
    read_stamps_of_memory,
    takes_pointers,
    write_pointer,
    write_stamps_of_memory,
)
from preshuffle.layouts.stamps.mapped import Mapping
from preshuffle.layouts.stamps.samples import digest_of, sample_file
from preshuffle.layouts.stamps.stamp_fields import Stamp
from preshuffle.registry import LayoutError

SUFFIX: Final = ".preshuffle"
_VERSION: Final = 1

Extent = tuple[int, int]
# Process-wide: views that callers of this process may write to mapped files through.
_LENT: Final[dict[tuple[tuple[int, int], Extent], list[weakref.ref[torch.UntypedStorage]]]] = {}


@dataclass(frozen=True, slots=True)
class Entry:
    """Stamp of one byte range of a file.

    Attributes:
        stamp: the stamp's JSON.
        settled: whether the bytes stay as they are now; a sample of them is stored then, as a digest.
        whole: whether the digest of all bytes is stored, too, and compared before they are moved.
    """

    stamp: str
    settled: bool
    whole: bool = False


def record_of(path: Path) -> Path:
    """Return the path of a file's record.

    Beside the file, or where the file's attribute says: it has got another name since, or several.

    Raises:
        LayoutError: the attribute names a record elsewhere that is gone.
    """
    beside = path.with_name(path.name + SUFFIX)
    if is_shared_memory(path) or beside.exists():
        return beside
    named = read_pointer(path) if takes_pointers(path) else _record_with_inode(path)
    if named is None or named == beside.absolute():
        return beside
    if not named.is_file():
        raise LayoutError(
            f"the record of {path} is gone ({named}): whether its bytes are plain or laid out is unknown; where they "
            f"are plain, remove the attribute: setfattr -x {POINTER} {path}"
        )
    return named


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


def read_stamps(path: Path, *, thorough: bool = False) -> dict[Extent, str]:
    """Return the stamps of a file by byte range.

    Empty where there is no record. A laid-out range without a digest (it was lent to somebody who writes it) is
    returned as ``unknown``.

    Args:
        path: the file.
        thorough: compare every byte, where the record has a digest of all.

    Raises:
        LayoutError: the record is damaged, or of other bytes than the file holds.
    """
    found = _read(path)
    if not found:
        return {}
    size = path.stat().st_size
    stamps: dict[Extent, str] = {}
    for begin, end, entry in _entries(found):
        stamp, digest, whole = entry["stamp"], entry["digest"], entry["whole"] if thorough else None
        changed = end > size or digest not in (None, digest_of(sample_file(path, (begin, end))))
        if changed or whole not in (None, digest_file(path, (begin, end))):
            raise LayoutError(
                f"{describe_record(path)} does not match the bytes of {path}: remove it if the file was rewritten"
            )
        if digest is None and isinstance(stamp, dict) and stamp.get("state") == "applied":
            stamp = {**stamp, "state": "unknown"}
        stamps[begin, end] = json.dumps(stamp)
    return stamps


def stamps_of_file(mapping: Mapping, *, thorough: bool) -> dict[Extent, Stamp]:
    """Return the stamps of a mapped file by byte range.

    What this process lent is settled where the views are gone; what another one lent is ``unknown``.
    """
    found: dict[Extent, Stamp] = {}
    for extent, text in read_stamps(mapping.path, thorough=thorough).items():
        stamp = parse_recorded(mapping.path, text)
        if stamp.state == "unknown":
            stamp = _settled(mapping, extent, text) or stamp.as_unknown()
        found[extent] = stamp
    return found


def lend_file(mapping: Mapping, extent: Extent, view: weakref.ref[torch.UntypedStorage]) -> None:
    """Record that a caller may write a file through a view."""
    for known, text in read_stamps(mapping.path).items():
        if known[0] <= extent[0] and extent[1] <= known[1] and mapping.writable:
            _LENT.setdefault((mapping.inode, known), []).append(view)
            write_stamps(mapping.path, {known: Entry(_applied(text), settled=False)})


def parse_recorded(path: Path, text: str) -> Stamp:
    """Parse a stamp of a file's record.

    Raises:
        LayoutError: the text is no stamp; the record is named.
    """
    try:
        return Stamp.from_text(text)
    except LayoutError as error:
        raise LayoutError(f"{describe_record(path)}: {error}") from None


def _settled(mapping: Mapping, extent: Extent, text: str) -> Stamp | None:
    """Return the stamp of bytes that this process lent; None of others."""
    views = _LENT.get((mapping.inode, extent))
    if views is None:
        return None
    if all(view() is None for view in views):
        del _LENT[mapping.inode, extent]
        write_stamps(mapping.path, {extent: Entry(_applied(text), settled=True)})
    return Stamp.from_text(_applied(text))


def _applied(text: str) -> str:
    return text.replace('"state": "unknown"', '"state": "applied"')


def digest_in_record(path: Path, extent: Extent) -> str | None:
    """Return the recorded digest of all bytes of a range, or None."""
    entries = {(begin, end): entry for begin, end, entry in _entries(_read(path))}
    return entries[extent]["whole"] if extent in entries else None


def write_stamps(path: Path, changes: Map[Extent, Entry | None]) -> None:
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
                    whole = digest_file(path, (begin, end)) if entry.whole else None
                    known[begin, end] = {"stamp": json.loads(entry.stamp), "digest": digest, "whole": whole}
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
    return [
        (
            int(entry["begin"]),
            int(entry["end"]),
            {**{k: entry[k] for k in ("stamp", "digest")}, "whole": entry.get("whole")},
        )
        for entry in entries
    ]


def _write(path: Path, known: Map[Extent, dict[str, Any]]) -> None:
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
