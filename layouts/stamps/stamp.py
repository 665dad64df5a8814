"""Lookup and recording of stamps, in memory and in mapped files.

A Python attribute of a tensor is lost by ``nn.Parameter(t)``, ``.data``, ``.view(dtype)`` and ``.detach()``. The
storage is the same object under all of them, and dies with its last tensor; so does the stamp. A clone has another
storage and no stamp. Where the storage is a mapped file, the stamp is kept beside the file, for every process.

Bytes that something else wrote since are ``unknown``. What is noticed:

* every write that torch counts on the stamped tensor or a view of it, of whatever size;
* every other write (NumPy, DLPack, ``.data``, another process) that a fingerprint shows: all of them where a tensor has
  up to 1 MiB, else every run of bytes as long as 1/1,024 of it (1/16,384 on a GPU);
* every change of a single byte, before bytes are moved, of a tensor whose digest is known: of a mapped file, of what
  was stamped from the metadata of a file, and of a copy (``deepcopy``, ``pickle``, ``torch.save``).

What ``write_expert`` or an expert's view wrote has no digest of all until the layer is laid out again.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.utils.dlpack import from_dlpack

from preshuffle.layouts.stamps.copies import adopt_stamps, has_copied_stamps
from preshuffle.layouts.stamps.entry import (
    Origin,
    StampEntry,
    add_witness,
    is_unchanged,
    note_soundness,
    take_fingerprint,
)
from preshuffle.layouts.stamps.file_stamps import (
    Entry,
    Extent,
    describe_record,
    digest_in_record,
    lend_file,
    parse_recorded,
    read_stamps,
    stamps_of_file,
    write_stamps,
)
from preshuffle.layouts.stamps.mapped import Mapping, find_mappings, mapping_of
from preshuffle.layouts.stamps.memory_extents import addresses_of, extent_of
from preshuffle.layouts.stamps.memory_records import MEMORY, MemoryRecord, Stamped, record_in_memory
from preshuffle.layouts.stamps.samples import digest_of, sample_file, sample_memory
from preshuffle.layouts.stamps.stamp_fields import Stamp
from preshuffle.layouts.tensors import as_bytes, check_no_stand_in, has_bytes, untraced
from preshuffle.registry import LayoutError
from preshuffle.registry.base.words import Role


@untraced
def stamp_of(tensor: torch.Tensor) -> Stamp | None:
    """Return the stamp of a tensor's bytes, or None.

    A view of part of a stamped tensor (one expert, say) has the whole tensor's stamp. The stamp of bytes that something
    else wrote to is ``unknown``, as far as a fingerprint shows. That of a GPU's memory is waited for.
    """
    return _enclosing(tensor, _overlapping(tensor))


def verified_stamp_of(tensor: torch.Tensor) -> Stamp | None:
    """Return the stamp of a tensor's bytes; compare every byte where possible."""
    found = _overlapping(tensor, thorough=True)
    return _enclosing(tensor, found) if found else None


def verified_stamps(tensor: torch.Tensor) -> tuple[Stamp | None, list[Stamp]]:
    """Return verified stamps of a tensor's and of all overlapping bytes.

    The tensor was checked to have bytes of its own (``check_memory``).
    """
    found = {} if tensor.device.type == "meta" else _overlapping_checked(tensor, thorough=True)
    return _enclosing(tensor, found) if found else None, list(found.values())


def _enclosing(tensor: torch.Tensor, stamps: dict[Extent, Stamp]) -> Stamp | None:
    begin, end = extent_of(tensor)
    return next((stamp for (first, last), stamp in stamps.items() if first <= begin and end <= last), None)


def overlapping_stamps(tensor: torch.Tensor) -> list[Stamp]:
    """Return the stamps of all bytes that overlap a tensor."""
    return list(_overlapping(tensor).values())


def enclosing_stamps(tensor: torch.Tensor) -> list[Stamp]:
    """Return stamps of bytes of which a tensor shows only a part."""
    begin, end = extent_of(tensor)
    return [stamp for (first, last), stamp in _overlapping(tensor).items() if first < begin or end < last]


def put_stamp(tensor: torch.Tensor, stamp: Stamp) -> None:
    """Stamp a tensor's bytes; replace what was recorded before.

    Raises:
        LayoutError: the tensor is a mapped file, and the record beside it cannot be written.
    """
    put_stamps([(tensor, stamp)])


def put_stamps(
    stamped: Iterable[tuple[torch.Tensor, Stamp | None]],
    *,
    whole: bool = True,
    digests: Iterable[str | None] | None = None,
    unwritten: bool = False,
) -> None:
    """Stamp several tensors' bytes; None removes a stamp.

    Those of one file are written at once.

    Args:
        stamped: the tensors and their stamps.
        whole: record the digest of all bytes of files.
        digests: of all bytes of each tensor, for those in memory, where they are known.
        unwritten: nobody has written to private mappings of files: their fingerprints are taken when they are needed.
    """
    stamped = list(stamped)
    find_mappings(tensor for tensor, _ in stamped)
    files: dict[Path, dict[Extent, Entry | None]] = defaultdict(dict)
    in_memory: list[Stamped] = []
    known = list(digests) if digests is not None else [None] * len(stamped)
    for (tensor, stamp), digest in zip(stamped, known, strict=True):
        mapping = mapping_of(tensor)
        if mapping is None or not mapping.shared:
            whole_storage = (0, tensor.untyped_storage().nbytes())
            if mapping is not None and (stamp is None or extent_of(tensor) != whole_storage):
                _memory_record(tensor)  # beside the new stamp, those that the file's record has still count
            origin = Origin.of(mapping.path, mapping.offset, extent_of(tensor)) if unwritten and mapping else None
            in_memory.append(Stamped(tensor, stamp, digest, origin))
            continue
        begin, end = extent_of(tensor)
        settled = stamp is not None and stamp.state == "applied"
        entry = Entry(stamp.to_text(), settled, settled and whole) if stamp is not None else None
        files[mapping.path][begin + mapping.offset, end + mapping.offset] = entry
    if in_memory:
        record_in_memory(in_memory)
    for path, changes in files.items():
        write_stamps(path, changes)


def drop_stamp(tensor: torch.Tensor) -> None:
    """Remove every stamp of a tensor's bytes."""
    if _overlapping(tensor):
        put_stamps([(tensor, None)])


def watch(tensor: torch.Tensor) -> None:
    """Take a tensor for a witness of torch's writes to its bytes."""
    record = MEMORY.find(tensor.untyped_storage())
    for _, entry in _entries(record, tensor) if record is not None else ():
        add_witness(entry, tensor)


def prepare_write(tensor: torch.Tensor) -> Stamp | None:
    """Return the stamp of bytes before the product writes to them.

    As ``stamp_of``, but a GPU is not waited for: bytes that were changed before show later.
    """
    record = None if _shared_mapping(tensor) or has_copied_stamps(tensor) else MEMORY.find(tensor.untyped_storage())
    begin, end = addresses_of(tensor)
    for extent, entry in _entries(record, tensor) if record is not None and tensor.device.type != "cpu" else ():
        storage = record.storage_for(extent) if record is not None else None
        if extent[0] <= begin and end <= extent[1] and entry.stamp.state == "applied" and storage is not None:
            note_soundness(entry, storage, extent)
            return entry.stamp.as_unknown() if entry.written else entry.stamp
    return stamp_of(tensor)


def finish_write(tensor: torch.Tensor, stamp: Stamp, sound: torch.Tensor | None) -> None:
    """Stamp bytes that the product has written to.

    Args:
        tensor: all of them.
        stamp: what they are, if they were before what their stamp said.
        sound: what ``soundness_of`` returned before the product wrote.
    """
    put_stamps([(tensor, stamp)], whole=False)
    record = MEMORY.find(tensor.untyped_storage()) if sound is not None else None
    for _, entry in _entries(record, tensor) if record is not None else ():
        entry.sound = sound


def soundness_of(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return what is not known yet of a GPU's bytes (see ``prepare_write``)."""
    record = MEMORY.find(tensor.untyped_storage())
    found = [entry.sound for _, entry in _entries(record, tensor)] if record is not None else []
    return next((sound for sound in found if sound is not None), None)


def lend(tensor: torch.Tensor, first: int, past: int) -> torch.Tensor:
    """Return a view that the caller may write laid-out bytes through.

    Until it and every view of it are gone, its bytes are believed; then their fingerprint is taken again.

    Args:
        tensor: laid out, all of it, contiguous; its stamp was compared just now.
        first: of its first dimension, where the part begins.
        past: behind its end.
    """
    view = from_dlpack(as_bytes(tensor.data)).view(tensor.dtype).view(tensor.shape)[first:past]
    lent = weakref.ref(view.untyped_storage())  # a storage of its own: it lives as long as a view of it
    mapping = _shared_mapping(tensor)
    if mapping is not None:
        begin, end = (edge + mapping.offset for edge in extent_of(tensor))
        lend_file(mapping, (begin, end), lent)
        return view
    record = MEMORY.find(tensor.untyped_storage())
    for _, entry in _entries(record, tensor) if record is not None else ():
        entry.lent.append((lent, *addresses_of(view)))
        entry.digest = None
    return view


def check_role(role: Role, stamp: Stamp) -> None:
    """Raise a LayoutError where a stamp is another role's."""
    if stamp.role != role:
        raise LayoutError(f"{role} holds what was laid out as {stamp.role} ({stamp.layout}, recipe {stamp.recipe})")


def check_known(name: str, tensor: torch.Tensor, stamp: Stamp) -> None:
    """Raise a LayoutError for bytes that were changed since they were stamped."""
    if stamp.state == "unknown":
        raise LayoutError(
            f"{name} was written to after it was laid out (recipe {stamp.recipe}){record_location(tensor)}: "
            "whether its bytes are plain, laid out or a mixture is unknown; nothing was changed. Call begin_reload, "
            "load its plain rows (or leave them, where all of them are plain already), and call finish_reload"
        )


def record_location(tensor: torch.Tensor) -> str:
    """Return where a file's stamp is recorded, for messages.

    Empty where the stamp is in this process's memory and no file's.
    """
    mapping = mapping_of(tensor)
    return f" (says {describe_record(mapping.path)})" if mapping is not None else ""


def _overlapping(tensor: torch.Tensor, *, thorough: bool = False) -> dict[Extent, Stamp]:
    """Return stamps by the bytes of the tensor's storage."""
    check_no_stand_in("the tensor", tensor)
    shown = tensor.device.type != "meta" and has_bytes(tensor)
    return _overlapping_checked(tensor, thorough=thorough) if shown else {}


def _overlapping_checked(tensor: torch.Tensor, *, thorough: bool) -> dict[Extent, Stamp]:
    mapping = _shared_mapping(tensor)
    if mapping is not None:
        return _in_file(tensor, mapping, thorough)
    record = _memory_record(tensor)
    if record is None:
        return {}
    start = tensor.untyped_storage().data_ptr()
    found = {(first - start, last - start): _verified(record, (first, last), entry, thorough)
             for (first, last), entry in _entries(record, tensor)}  # fmt: skip
    for _, entry in _entries(record, tensor):
        if entry.stamp.state == "applied" and not entry.written:
            add_witness(entry, tensor)
    return found


def _verified(record: MemoryRecord, extent: Extent, entry: StampEntry, thorough: bool) -> Stamp:
    if entry.stamp.state != "applied":
        return entry.stamp
    if is_unchanged(entry, record.storage_for(extent), extent, thorough=thorough):
        return entry.stamp
    return entry.stamp.as_unknown()


def _entries(record: MemoryRecord, tensor: torch.Tensor) -> list[tuple[Extent, StampEntry]]:
    begin, end = addresses_of(tensor)
    return [(extent, entry) for extent, entry in list(record.entries.items()) if extent[0] < end and begin < extent[1]]


def _memory_record(tensor: torch.Tensor) -> MemoryRecord | None:
    storage, mapping = tensor.untyped_storage(), mapping_of(tensor)
    if has_copied_stamps(tensor):
        adopt_stamps(tensor)
    if mapping is None:
        return MEMORY.find(storage)
    met = MEMORY.has_met(storage)
    record = MEMORY.find(storage)
    if record is None or not (met or record.is_shown_by_another(storage)):
        return _seeded(storage, mapping)
    return record


def _seeded(storage: torch.UntypedStorage, mapping: Mapping) -> MemoryRecord | None:
    """Record what a file's stamps say of a private mapping of it.

    Its bytes are this process's own, and may have been changed before.
    """
    record = MEMORY.find(storage, create=True)
    start = storage.data_ptr() - mapping.offset
    for (first, last), text in read_stamps(mapping.path).items() if record is not None else ():
        begin, end = first + start, last + start
        if record is None or begin < record.begin or record.end < end:
            continue
        same = digest_of(sample_memory(storage, first - mapping.offset, last - first)) == digest_of(
            sample_file(mapping.path, (first, last))
        )
        known, digest = take_fingerprint(storage, (begin, end)), digest_in_record(mapping.path, (first, last))
        record.entries[begin, end] = StampEntry(parse_recorded(mapping.path, text), known, digest, written=not same)
    return record


def _in_file(tensor: torch.Tensor, mapping: Mapping, thorough: bool) -> dict[Extent, Stamp]:
    _publish(tensor, mapping)
    begin, end = extent_of(tensor)
    found: dict[Extent, Stamp] = {}
    for (first, last), stamp in stamps_of_file(mapping, thorough=thorough).items():
        extent = (first - mapping.offset, last - mapping.offset)
        if extent[0] < end and begin < extent[1]:
            found[extent] = stamp
    return found


def _publish(tensor: torch.Tensor, mapping: Mapping) -> None:
    """Move stamps from memory to the file that its memory has become (``share_memory_``)."""
    storage = tensor.untyped_storage()
    record = MEMORY.find(storage)
    if record is None or not record.entries:
        return
    begin, end = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
    start, changes = begin - mapping.offset, {}
    for extent, entry in [item for item in record.entries.items() if begin <= item[0][0] and item[0][1] <= end]:
        settled = _verified(record, extent, entry, thorough=False).state == "applied"
        changes[extent[0] - start, extent[1] - start] = Entry(entry.stamp.to_text(), settled, whole=settled)
    record.discard(begin, end)
    if changes:
        write_stamps(mapping.path, changes)


def _shared_mapping(tensor: torch.Tensor) -> Mapping | None:
    mapping = mapping_of(tensor)
    return mapping if mapping is not None and mapping.shared else None
