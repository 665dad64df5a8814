"""Which file lies under a tensor's memory: asked of the kernel, whoever mapped it (torch, NumPy, safetensors)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

_ATTRIBUTE: Final = "_preshuffle_mapping"
_MAPS: Final = Path("/proc/self/maps")
_DELETED: Final = " (deleted)"


@dataclass(frozen=True, slots=True)
class Mapping:
    """A file under a storage.

    Attributes:
        path: the file.
        offset: where in the file the storage's first byte lies.
        shared: whether what is written to the storage reaches the file; else it is this process's own copy.
    """

    path: Path
    offset: int
    shared: bool


def mapping_of(tensor: torch.Tensor) -> Mapping | None:
    """Return the file under a tensor's storage; None for ordinary memory, for a GPU's, and for a file without a name.

    What was found is kept with the storage: memory keeps its file for as long as it is mapped.
    """
    look_up([tensor])
    found: Mapping | None = getattr(tensor.untyped_storage(), _ATTRIBUTE, None)
    return found


def look_up(tensors: Iterable[torch.Tensor]) -> None:
    """Ask for several tensors at once: the kernel's list is read once for all that were not asked for before."""
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.device.type == "cpu"]
    new = [storage for storage in storages if not hasattr(storage, _ATTRIBUTE)]
    if not new:
        return
    lines = _lines()
    for storage in new:
        setattr(storage, _ATTRIBUTE, _find(lines, storage.data_ptr()))


def is_ordinary(tensor: torch.Tensor) -> None:
    """Say that a tensor was allocated just now: there is no file to be looked for."""
    setattr(tensor.untyped_storage(), _ATTRIBUTE, None)


def _lines() -> list[str]:
    try:
        # only mappings of named files: ``start-end perms offset device inode path``
        return [line for line in _MAPS.read_text(errors="surrogateescape").splitlines() if " /" in line]
    except OSError:  # no such list on this system
        return []


def _find(lines: list[str], address: int) -> Mapping | None:
    for line in lines:
        span, permissions, offset, _, inode, path = line.split(maxsplit=5)
        begin, end = (int(number, 16) for number in span.split("-"))
        if begin <= address < end:
            return _checked(path, int(inode), int(offset, 16) + address - begin, permissions.endswith("s"))
    return None


def _checked(path: str, inode: int, offset: int, shared: bool) -> Mapping | None:
    """Return the mapping if its name still leads to the file."""
    try:
        if path.endswith(_DELETED) or os.stat(path).st_ino != inode:
            return None
    except OSError:
        return None
    return Mapping(Path(path), offset, shared)
