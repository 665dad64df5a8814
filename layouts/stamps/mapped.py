"""Memory-mapped files behind tensors, found through Linux's ``/proc/self/maps``.

Works whoever mapped the file (torch, NumPy, safetensors).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from preshuffle.layouts.stamps.inode_marks import is_shared_memory, marks_shared_memory
from preshuffle.registry import LayoutError

_ATTRIBUTE: Final = "_preshuffle_mapping"
_MAPS: Final = Path("/proc/self/maps")
_DESCRIPTORS: Final = Path("/proc/self/fd")
_SHARED_MEMORY: Final = "/dev/shm/"
_DELETED: Final = " (deleted)"
_QUERY: Final = struct.Struct("9Q4I2Q")
"""Linux's ``struct procmap_query``: size, flags, address; the answer's begin, end, flags, page size, offset, inode and
device; room for a name and a build id, and where they go."""
_IOCTL: Final = 0xC0686611  # PROCMAP_QUERY, since Linux 6.11
_WRITABLE, _SHARED, _FILE_BACKED = 0x02, 0x08, 0x20
_NAME_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Mapping:
    """File that is mapped into a storage's memory.

    Attributes:
        path: the file, under one of its names.
        offset: where in the file the storage's first byte lies.
        shared: whether what is written to the storage reaches the file; else it is this process's own copy.
        writable: whether it can be written to; else the process that tries is ended.
        inode: device and inode: the same under each of the file's names.
    """

    path: Path
    offset: int
    shared: bool
    writable: bool = True
    inode: tuple[int, int] = (0, 0)


def mapping_of(tensor: torch.Tensor) -> Mapping | None:
    """Return the file mapped under a tensor's storage.

    None for ordinary memory, for a GPU's, and for a file without a name that is not shared memory.

    What was found is kept with the storage and its address: memory keeps its file for as long as it is mapped.
    """
    if tensor.device.type != "cpu":
        return None
    storage = tensor.untyped_storage()
    if _is_new(storage):
        find_mappings([tensor])
    _, found = getattr(storage, _ATTRIBUTE, (0, None))
    return found


def is_shared_file(tensor: torch.Tensor) -> bool:
    """Return whether writes to a tensor reach a file."""
    mapping = mapping_of(tensor)
    return mapping is not None and mapping.shared


def check_writable(name: str, tensor: torch.Tensor) -> None:
    """Raise a LayoutError for a file mapped read-only."""
    mapping = mapping_of(tensor)
    if mapping is not None and not mapping.writable:
        raise LayoutError(f"{name} is {mapping.path}, mapped for reading only; map it for writing, or take a copy")


def find_mappings(tensors: Iterable[torch.Tensor]) -> None:
    """Find and cache the mappings of several tensors at once.

    The kernel's list is read once for all storages that are not cached yet.
    """
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.device.type == "cpu"]
    new = [storage for storage in storages if _is_new(storage)]
    if not new:
        return
    addresses = [storage.data_ptr() for storage in new]
    for storage, address, mapping in zip(new, addresses, _query_addresses(addresses), strict=True):
        setattr(storage, _ATTRIBUTE, (address, mapping))


def mark_unmapped(tensor: torch.Tensor) -> None:
    """Record that a tensor's new storage maps no file.

    Saves the search for storages that were allocated just now.
    """
    if tensor.device.type == "cpu":  # only there files are mapped
        storage = tensor.untyped_storage()
        setattr(storage, _ATTRIBUTE, (storage.data_ptr(), None))


def mark_mapped(tensors: Iterable[tuple[torch.Tensor, int]], path: Path, inode: int) -> None:
    """Record that new storages map a file privately, to be written.

    Saves the search for storages that were mapped just now.

    Args:
        tensors: each with the place in the file of its storage's first byte.
        path: the file's, as the kernel names it: absolute, without links.
        inode: of the file that was mapped.
    """
    found = _mapping_if_current(str(path), inode, 0, shared=False, writable=True)
    for tensor, offset in tensors:
        storage = tensor.untyped_storage()
        mapping = found and Mapping(found.path, offset, found.shared, found.writable, found.inode)
        setattr(storage, _ATTRIBUTE, (storage.data_ptr(), mapping))


def _is_new(storage: torch.UntypedStorage) -> bool:
    address, _ = getattr(storage, _ATTRIBUTE, (None, None))
    return bool(address != storage.data_ptr())


def _query_addresses(addresses: list[int]) -> list[Mapping | None]:
    try:
        with closing(_Handle(os.open(_MAPS, os.O_RDONLY))) as maps:
            return [maps.mapping(address) for address in addresses]
    except OSError:
        return _search_text(addresses)


class _Handle:
    """Open list of mappings, queried by address.

    One query takes microseconds, however long the list is; addresses in the range that was found last take none.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.name = ctypes.create_string_buffer(_NAME_BYTES)
        self.begin = self.end = 0
        self.found: Mapping | None = None

    def mapping(self, address: int) -> Mapping | None:
        """Return the mapping at an address.

        Raises:
            OSError: this kernel does not answer.
        """
        if not self.begin <= address < self.end:
            self.query(address)
        return self.found and replace(self.found, offset=self.found.offset + address - self.begin)

    def query(self, address: int) -> None:
        """Find the range of an address, and the mapping at its begin.

        Raises:
            OSError: this kernel does not answer.
        """
        query = (_QUERY.size, _FILE_BACKED, address, *(0,) * 8, _NAME_BYTES, 0, ctypes.addressof(self.name), 0)
        buffer = bytearray(_QUERY.pack(*query))
        try:
            fcntl.ioctl(self.descriptor, _IOCTL, buffer, True)
        except FileNotFoundError:  # no file is mapped there
            self.begin, self.end, self.found = address, address + 1, None
            return
        _, _, _, self.begin, self.end, flags, _, offset, inode, *_ = _QUERY.unpack(buffer)
        self.found = _mapping_if_current(
            os.fsdecode(self.name.value), inode, offset, bool(flags & _SHARED), bool(flags & _WRITABLE)
        )

    def close(self) -> None:
        os.close(self.descriptor)


def _search_text(addresses: list[int]) -> list[Mapping | None]:
    """Find the mappings of addresses by parsing the list's text."""
    try:
        text = _MAPS.read_text(errors="surrogateescape")
    except OSError:  # no such list on this system
        return [None] * len(addresses)
    found: list[Mapping | None] = [None] * len(addresses)
    for line in text.splitlines():
        first, _, rest = line.partition("-")
        last = rest[: rest.index(" ")]
        begin, end = int(first, 16), int(last, 16)
        for index, address in enumerate(addresses):
            if begin <= address < end and " /" in rest:  # ``start-end perms offset device inode path``
                _, permissions, offset, _, inode, path = line.split(maxsplit=5)
                place = int(offset, 16) + address - begin
                found[index] = _mapping_if_current(
                    path, int(inode), place, permissions.endswith("s"), "w" in permissions
                )
    return found


def _mapping_if_current(path: str, inode: int, offset: int, shared: bool, writable: bool) -> Mapping | None:
    """Return the mapping if its name still leads to the file.

    Shared memory whose name is gone is reached through an open descriptor, which torch keeps.
    """
    if path.endswith(_DELETED):
        named = _descriptor_of(path, inode)
    else:
        named = Path(path)
    try:
        status = os.stat(named) if named is not None else None
    except OSError:
        return None
    if named is None or status is None or status.st_ino != inode:
        return None
    if is_shared_memory(named) and not marks_shared_memory():
        return None
    return Mapping(named, offset, shared, writable, (status.st_dev, inode))


def _descriptor_of(path: str, inode: int) -> Path | None:
    """Return the path of this process's descriptor of an unnamed file, or None."""
    if not path.startswith(_SHARED_MEMORY):
        return None
    for descriptor in sorted(_DESCRIPTORS.iterdir(), key=lambda entry: int(entry.name)):
        try:
            if os.readlink(descriptor) == path and os.stat(descriptor).st_ino == inode:
                return descriptor
        except OSError:
            continue
    return None
