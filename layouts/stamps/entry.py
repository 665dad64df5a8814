"""Stamp of bytes in memory, with the evidence that they are unchanged."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch

from preshuffle.layouts.stamps.digests import (
    digest_memory,
    fingerprint_of_file,
    fingerprints,
    is_uniform,
    part_edges,
)
from preshuffle.layouts.stamps.inode_marks import FileState, state_of_file
from preshuffle.layouts.stamps.stamp_fields import Stamp

_MOST_WITNESSES: Final = 4

Extent = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Origin:
    """Bytes of a file that a private mapping shows.

    Attributes:
        path: the file.
        extent: where in the file they begin, and where they end.
        state: of the file when the bytes were stamped.
    """

    path: Path
    extent: Extent
    state: FileState

    @staticmethod
    def of(path: Path, offset: int, extent: Extent) -> Origin | None:
        """Describe bytes of a mapping; None where the file is gone.

        Args:
            path: the mapped file.
            offset: where in it the mapping begins.
            extent: of the bytes in the mapping.
        """
        try:
            return Origin(path, (offset + extent[0], offset + extent[1]), state_of_file(path))
        except OSError:
            return None

    def fingerprint(self) -> torch.Tensor | None:
        """Return the bytes' fingerprint.

        None where the file was written since, or is gone.
        """
        try:
            found = fingerprint_of_file(self.path, self.extent) if self.is_current() else None
        except (OSError, ValueError):
            return None
        return found if self.is_current() else None

    def is_current(self) -> bool:
        """Return whether the file holds the same bytes."""
        try:
            return state_of_file(self.path) == self.state
        except OSError:
            return False


@dataclass(slots=True, eq=False)
class StampEntry:
    """Stamp of some bytes, and their evidence.

    Attributes:
        stamp: what was recorded.
        fingerprint: of the bytes when they were stamped; None unless they are laid out.
        digest: of all of them, where somebody had read them all.
        origin: where their fingerprint can be taken as long as there is none: it costs a page's address a word, which
            an engine that only loads would wait for.
        written: whether torch wrote to the bytes since, as far as a witness showed.
        sound: GPU bool: whether the fingerprint was right when the product itself wrote; None where that is known.
        witnesses: tensors on the bytes, each with its ``_version`` when it was seen.
        lent: storages of views that the caller may write laid-out bytes through, with the addresses of each view.
    """

    stamp: Stamp
    fingerprint: torch.Tensor | None = None
    digest: str | None = None
    origin: Origin | None = None
    written: bool = False
    sound: torch.Tensor | None = None
    witnesses: list[tuple[weakref.ref[torch.Tensor], int]] = field(default_factory=list)
    lent: list[tuple[weakref.ref[torch.UntypedStorage], int, int]] = field(default_factory=list)


def add_witness(entry: StampEntry, tensor: torch.Tensor) -> None:
    """Remember a tensor whose ``_version`` counts torch's writes.

    Tensors of inference mode count none.
    """
    if tensor.is_inference():
        return
    living = [(reference, version) for reference, version in entry.witnesses if reference() is not None]
    if all(reference() is not tensor for reference, _ in living):
        living = [*living, (weakref.ref(tensor), int(tensor._version))][-_MOST_WITNESSES:]
    entry.witnesses = living


def take_fingerprint(storage: torch.UntypedStorage, extent: Extent) -> torch.Tensor:
    """Return the fingerprint of the bytes at some addresses of a storage."""
    return take_fingerprints([(storage, extent)])[0]


def take_fingerprints(places: Iterable[tuple[torch.UntypedStorage, Extent]]) -> list[torch.Tensor]:
    """Return the fingerprints of the bytes at some addresses of storages."""
    return fingerprints([(storage, first - storage.data_ptr(), past - first) for storage, (first, past) in places])


def take_digest(storage: torch.UntypedStorage, extent: Extent) -> str:
    """Return the digest of all bytes at some addresses of a storage."""
    return digest_memory(storage, extent[0] - storage.data_ptr(), extent[1] - extent[0])


def is_unchanged(
    entry: StampEntry, storage: torch.UntypedStorage | None, extent: Extent, *, thorough: bool = False
) -> bool:
    """Return whether bytes are still what was stamped.

    As far as a fingerprint and torch's counters show. On a GPU the answer is waited for.

    Args:
        entry: laid out.
        storage: on the bytes, all of them; None where no living one covers them.
        extent: their addresses.
        thorough: compare every byte, where a digest of all is known.
    """
    if storage is None:
        return False
    _ask_witnesses(entry, storage, extent)
    if entry.written or (entry.sound is not None and not bool(entry.sound)):
        return False
    entry.sound = None
    known = _known_fingerprint(entry, storage, extent)
    if known is None:
        return False
    now = take_fingerprint(storage, extent)
    if entry.lent:
        return _is_unchanged_beside_lent(entry, known, now, extent)
    if not torch.equal(now, known):
        return False
    return not thorough or entry.digest in (None, take_digest(storage, extent))


def _known_fingerprint(entry: StampEntry, storage: torch.UntypedStorage, extent: Extent) -> torch.Tensor | None:
    """Return the fingerprint of bytes when they were stamped, None without any.

    That of a mapped file is taken of the file at the first call. Of a file that was written since nothing can be
    learnt: then all bytes of the memory are compared with their digest.
    """
    if entry.fingerprint is None and entry.origin is not None:
        entry.fingerprint = entry.origin.fingerprint()
        if entry.fingerprint is None and entry.digest is not None and take_digest(storage, extent) == entry.digest:
            entry.fingerprint = take_fingerprint(storage, extent)
        entry.written = entry.written or entry.fingerprint is None
        entry.origin = None
    return entry.fingerprint


def _is_unchanged_beside_lent(entry: StampEntry, known: torch.Tensor, now: torch.Tensor, extent: Extent) -> bool:
    """Compare the bytes that no view reaches.

    Those of living views are believed, and what views that are gone left behind.
    """
    closed = [(begin, end) for lent, begin, end in entry.lent if lent() is None]
    entry.lent = [one for one in entry.lent if one[0]() is not None]
    open_ranges = [(begin, end) for _, begin, end in entry.lent]
    entry.fingerprint = torch.where(_inside(closed, extent).to(now.device), now, known)
    return bool(((now == entry.fingerprint) | _inside(open_ranges, extent).to(now.device)).all())


def note_soundness(entry: StampEntry, storage: torch.UntypedStorage, extent: Extent) -> None:
    """Note whether the bytes are unchanged before the product writes.

    A GPU is not waited for: what it finds is read with the next question.
    """
    _ask_witnesses(entry, storage, extent)
    if entry.fingerprint is None or storage.device.type == "cpu" or entry.lent:
        entry.written = entry.written or not is_unchanged(entry, storage, extent)
        return
    same = (take_fingerprint(storage, extent) == entry.fingerprint).all()
    entry.sound = same if entry.sound is None else entry.sound & same


def continues(entry: StampEntry, storage: torch.UntypedStorage, extent: Extent) -> bool:
    """Return whether a new storage shows the bytes of an orphaned entry.

    Its own storages are gone, and so is a mapping of ours. Plain bytes and bytes that are all the same prove nothing.
    """
    if entry.fingerprint is None or entry.stamp.layout == "plain":
        return False
    if is_uniform(storage, extent[0] - storage.data_ptr(), extent[1] - extent[0]):
        return False
    entry.witnesses, entry.lent = [], []
    return is_unchanged(entry, storage, extent)


def _ask_witnesses(entry: StampEntry, storage: torch.UntypedStorage, extent: Extent) -> None:
    """Note writes that torch counted.

    A counter of a larger storage counts writes beside the bytes, too, and proves nothing.
    """
    asked: list[tuple[weakref.ref[torch.Tensor], int]] = []
    for reference, version in entry.witnesses:
        tensor = reference()
        if tensor is None or not extent[0] <= tensor.data_ptr() < max(extent[1], extent[0] + 1):
            continue
        now = int(tensor._version)
        if now != version and tensor.untyped_storage().nbytes() <= extent[1] - extent[0]:
            entry.written = True
        asked.append((reference, now))
    entry.witnesses = asked


def _inside(ranges: list[Extent], extent: Extent) -> torch.Tensor:
    """Return which parts of a fingerprint touch some ranges of addresses."""
    edges = part_edges(extent[1] - extent[0]) + extent[0]
    found = torch.zeros(len(edges) - 1, dtype=torch.bool, device="cpu")
    for begin, end in ranges:
        found |= (edges[:-1] < end) & (begin < edges[1:])
    return found
