"""Stamp of bytes in memory, with the evidence that they are unchanged."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Final

import torch

from preshuffle.layouts.stamps.samples import sample_memory, sampled_extents
from preshuffle.layouts.stamps.stamp_fields import Stamp

_MOST_WITNESSES: Final = 4

Extent = tuple[int, int]


@dataclass(slots=True, eq=False)
class StampEntry:
    """Stamp of some bytes, and their evidence.

    Attributes:
        stamp: what was recorded.
        sample: of the bytes when they were stamped; None unless they are laid out.
        written: whether torch wrote to the bytes since, as far as a witness showed.
        sound: GPU bool: whether the sample was right when the product itself wrote; None where that is known.
        witnesses: tensors on the bytes, each with its ``_version`` when it was seen.
        lent: storages of views that the caller may write laid-out bytes through, with the addresses of each view.
    """

    stamp: Stamp
    sample: torch.Tensor | None = None
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


def take_sample(storage: torch.UntypedStorage, extent: Extent) -> torch.Tensor:
    """Return a sample of the bytes at some addresses of a storage."""
    return sample_memory(storage, extent[0] - storage.data_ptr(), extent[1] - extent[0])


def is_unchanged(entry: StampEntry, storage: torch.UntypedStorage | None, extent: Extent) -> bool:
    """Return whether bytes are still what was stamped.

    As far as a sample and torch's counters show. On a GPU the answer is waited for.

    Args:
        entry: laid out.
        storage: on the bytes, all of them; None where no living one covers them.
        extent: their addresses.
    """
    if storage is None or entry.sample is None:
        return False
    _ask_witnesses(entry, storage, extent)
    if entry.written or (entry.sound is not None and not bool(entry.sound)):
        return False
    entry.sound = None
    now = take_sample(storage, extent)
    if not entry.lent:
        return torch.equal(now, entry.sample)
    closed = [(begin, end) for lent, begin, end in entry.lent if lent() is None]
    entry.lent = [one for one in entry.lent if one[0]() is not None]
    open_ranges = [(begin, end) for _, begin, end in entry.lent]
    entry.sample = torch.where(_inside(closed, extent).to(now.device), now, entry.sample)
    return bool(((now == entry.sample) | _inside(open_ranges, extent).to(now.device)).all())


def note_soundness(entry: StampEntry, storage: torch.UntypedStorage, extent: Extent) -> None:
    """Note whether the bytes are unchanged before the product writes.

    A GPU is not waited for: what it finds is read with the next question.
    """
    _ask_witnesses(entry, storage, extent)
    if entry.sample is None or storage.device.type == "cpu" or entry.lent:
        entry.written = entry.written or not is_unchanged(entry, storage, extent)
        return
    same = (take_sample(storage, extent) == entry.sample).all()
    entry.sound = same if entry.sound is None else entry.sound & same


def continues(entry: StampEntry, storage: torch.UntypedStorage, extent: Extent) -> bool:
    """Return whether a new storage shows the bytes of an orphaned entry.

    Its own storages are gone. Plain bytes and bytes that are all the same prove nothing.
    """
    if entry.sample is None or entry.stamp.layout == "plain" or bool((entry.sample == entry.sample[0]).all()):
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
    """Return which sampled bytes lie in some ranges of addresses."""
    places = torch.cat([torch.arange(begin, end) for begin, end in sampled_extents(extent[1] - extent[0])]) + extent[0]
    found = torch.zeros(len(places), dtype=torch.bool)
    for begin, end in ranges:
        found |= (begin <= places) & (places < end)
    return found
