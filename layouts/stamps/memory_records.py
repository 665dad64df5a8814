"""Process-wide records of stamped memory, by device and address.

The record hangs on the storage, so that it survives every re-wrapping of a tensor and dies with the memory. Another
storage on the same memory (NumPy, DLPack, ``frombuffer``) finds it by its address.
"""

from __future__ import annotations

import os
import weakref
from bisect import bisect_left, insort
from collections import OrderedDict
from dataclasses import dataclass, field
from operator import itemgetter
from threading import RLock
from typing import Final

import torch

from preshuffle.layouts.stamps.entry import Origin, StampEntry, add_witness, continues, take_fingerprints
from preshuffle.layouts.stamps.memory_extents import addresses_of
from preshuffle.layouts.stamps.stamp_fields import Stamp

_ATTRIBUTE: Final = "_preshuffle_stamps"
_MOST_ORPHANS: Final = 1024
_FEW: Final = 16
"""Records of a device that may stand in the table, living or gone, before those that are gone are looked for."""

Extent = tuple[int, int]


@dataclass(slots=True, eq=False, weakref_slot=True)
class MemoryRecord:
    """Stamps of one block of a device's memory.

    Attributes:
        begin: address of the block's first byte.
        end: address behind its last one.
        entries: stamps by the addresses of their bytes.
        storages: storages on the block, each with its address, its bytes, and whether the memory dies with it.
    """

    device: torch.device
    begin: int
    end: int
    entries: dict[Extent, StampEntry] = field(default_factory=dict)
    storages: list[tuple[weakref.ref[torch.UntypedStorage], int, int, bool]] = field(default_factory=list)

    def storage_for(self, extent: Extent) -> torch.UntypedStorage | None:
        """Return a living storage that covers some addresses, or None."""
        for reference, address, nbytes, _ in self.storages:
            storage = reference()
            if storage is None or not (address <= extent[0] and extent[1] <= address + nbytes):
                continue
            if (storage.data_ptr(), storage.nbytes()) == (address, nbytes):  # else its memory was freed or moved since
                return storage
        return None

    def is_shown_by_another(self, storage: torch.UntypedStorage) -> bool:
        """Whether a living storage besides this one shows some of its bytes."""
        begin, end = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        return any(
            address < end and begin < address + nbytes and reference() not in (None, storage)
            for reference, address, nbytes, _ in self.storages
        )

    def sweep(self) -> None:
        """Forget storages that are gone, and stamps of their own memory."""
        gone = [one for one in self.storages if one[0]() is None]
        self.storages = [one for one in self.storages if one[0]() is not None]
        for _, address, nbytes, owned in gone if self.entries else ():
            if owned:
                self.entries = {
                    extent: entry
                    for extent, entry in self.entries.items()
                    if extent[1] <= address or address + nbytes <= extent[0] or self.storage_for(extent) is not None
                }

    def discard(self, begin: int, end: int) -> None:
        """Remove the entries that overlap some addresses."""
        self.entries = {
            extent: entry for extent, entry in self.entries.items() if extent[1] <= begin or end <= extent[0]
        }


class MemoryRecords:
    """Records of all memory of this process.

    Records of one device never overlap. They are weakly referenced: storages keep them alive. Memory that no storage of
    torch owns (a NumPy array's, say) may outlive its storages, so its record stays, to be compared with the bytes when
    another storage shows them.
    """

    def __init__(self) -> None:
        """Create an empty table."""
        self.lock = RLock()
        self._records: dict[torch.device, list[tuple[int, weakref.ref[MemoryRecord]]]] = {}
        self._full: dict[torch.device, int] = {}
        self._foreign: OrderedDict[int, MemoryRecord] = OrderedDict()

    def has_met(self, storage: torch.UntypedStorage) -> bool:
        """Whether a storage was found or recorded before."""
        return hasattr(storage, _ATTRIBUTE)

    def find(self, storage: torch.UntypedStorage, *, create: bool = False) -> MemoryRecord | None:
        """Return the record of a storage's memory.

        None where there is none and none is created.

        A storage whose memory lies elsewhere by now, or is smaller (``resize_``), has lost its stamps, unless it was
        moved to shared memory with its bytes.
        """
        address, nbytes, record = getattr(storage, _ATTRIBUTE, (0, 0, None))
        pointer, size = storage.data_ptr(), storage.nbytes()
        if record is not None and (address, nbytes) == (pointer, size):
            found: MemoryRecord = record
            return found
        if size == 0 and record is None:
            return None
        with self.lock:
            moved: dict[Extent, StampEntry] = {}
            if record is not None:
                if pointer != address and size == nbytes and storage.device.type == "cpu" and storage.is_shared():
                    moved = _shifted(record, address, pointer, nbytes)
                record.discard(address, address + nbytes)
                record.storages = [one for one in record.storages if one[0]() is not storage]
                delattr(storage, _ATTRIBUTE)
            overlapping = self._overlapping(storage.device, pointer, pointer + size)
            for known in overlapping:
                known.sweep()
                _keep_what_continues(known, storage)
            if not (overlapping or moved or create) or size == 0:
                return None
            merged = self._merge(overlapping, storage.device, pointer, pointer + size)
            merged.entries.update(moved)
            self._attach(storage, merged)
            return merged

    def _overlapping(self, device: torch.device, begin: int, end: int) -> list[MemoryRecord]:
        known = self._records.get(device, [])
        first = max(bisect_left(known, begin, key=_begin) - 1, 0)
        while first and known[first][1]() is None:  # records that are gone hide the one before them
            first -= 1
        found: list[MemoryRecord] = []
        for _, reference in known[first:]:
            record = reference()
            if record is not None and end <= record.begin:
                break
            if record is not None and begin < record.end:
                found.append(record)
        return found

    def _merge(self, overlapping: list[MemoryRecord], device: torch.device, begin: int, end: int) -> MemoryRecord:
        if len(overlapping) == 1 and overlapping[0].begin <= begin and end <= overlapping[0].end:
            return overlapping[0]
        begin = min([begin, *(record.begin for record in overlapping)])
        end = max([end, *(record.end for record in overlapping)])
        merged = MemoryRecord(device, begin, end)
        for record in overlapping:
            merged.entries.update(record.entries)
            self._foreign.pop(id(record), None)
            for reference, _, _, _ in record.storages:
                storage = reference()
                if storage is not None:
                    self._attach(storage, merged)
        known = self._records.setdefault(device, [])
        if overlapping or len(known) >= self._full.get(device, _FEW):
            known[:] = [item for item in known if item[1]() not in (None, *overlapping)]
            self._full[device] = 2 * len(known) + _FEW
        insort(known, (begin, weakref.ref(merged)), key=_begin)
        return merged

    def _attach(self, storage: torch.UntypedStorage, record: MemoryRecord) -> None:
        pointer, size = storage.data_ptr(), storage.nbytes()
        if record.storages:
            record.sweep()
            record.storages = [one for one in record.storages if one[0]() is not storage]
        record.storages.append((weakref.ref(storage), pointer, size, storage.resizable()))
        setattr(storage, _ATTRIBUTE, (pointer, size, record))
        if record.storages[-1][3]:
            self._foreign.pop(id(record), None)
        elif all(not one.resizable() for reference, _, _, _ in record.storages if (one := reference()) is not None):
            self._foreign[id(record)] = record
            self._foreign.move_to_end(id(record))
            while len(self._foreign) > _MOST_ORPHANS:
                self._foreign.popitem(last=False)


# Process-wide: memory is, whichever thread stamps it. A process is forked between two changes, never within one.
MEMORY: Final = MemoryRecords()
os.register_at_fork(before=MEMORY.lock.acquire, after_in_parent=MEMORY.lock.release, after_in_child=MEMORY.lock.release)


_begin: Final = itemgetter(0)


def _keep_what_continues(record: MemoryRecord, storage: torch.UntypedStorage) -> None:
    """Drop entries of freed memory that a new storage shows, unless it shows their very bytes.

    A living storage that covers an entry proves that its memory was not freed.
    """
    begin, end = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
    record.entries = {
        extent: entry
        for extent, entry in record.entries.items()
        if extent[1] <= begin
        or end <= extent[0]
        or record.storage_for(extent) is not None
        or (begin <= extent[0] and extent[1] <= end and continues(entry, storage, extent))
    }


def _shifted(record: MemoryRecord, address: int, pointer: int, nbytes: int) -> dict[Extent, StampEntry]:
    shift = pointer - address
    return {
        (begin + shift, end + shift): entry
        for (begin, end), entry in record.entries.items()
        if address <= begin and end <= address + nbytes
    }


@dataclass(frozen=True, slots=True)
class Stamped:
    """Tensor in this process's memory, and what is recorded of it.

    Attributes:
        stamp: None removes what is recorded.
        digest: of all bytes, where it is known.
        origin: the file whose bytes they are, where nobody has written to them.
    """

    tensor: torch.Tensor
    stamp: Stamp | None
    digest: str | None = None
    origin: Origin | None = None

    @property
    def needs_fingerprint(self) -> bool:
        """Whether its fingerprint must be taken now."""
        return self.origin is None and self.stamp is not None and self.stamp.state == "applied"


def record_in_memory(stamped: list[Stamped]) -> None:
    """Record stamps of this process's memory, fingerprints at once."""
    places = [(one.tensor.untyped_storage(), addresses_of(one.tensor)) for one in stamped]
    with MEMORY.lock:
        known = iter(
            take_fingerprints(place for place, one in zip(places, stamped, strict=True) if one.needs_fingerprint)
        )
        for (storage, extent), one in zip(places, stamped, strict=True):
            taken = next(known) if one.needs_fingerprint else None
            record = MEMORY.find(storage, create=one.stamp is not None)
            if record is None:
                continue
            record.discard(*extent)
            if one.stamp is not None:
                record.entries[extent] = entry = StampEntry(one.stamp, taken, one.digest, one.origin)
                add_witness(entry, one.tensor)
