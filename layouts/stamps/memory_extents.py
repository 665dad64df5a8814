"""Extents of a tensor's bytes in memory and in files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

import torch

from preshuffle.layouts.stamps.mapped import mapping_of

MemoryExtent = tuple[torch.device | tuple[int, int], int, int]
"""Some bytes: of which device's memory or which file (device and inode), the first, and past the last."""


def tensors_overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors share bytes.

    They may be of one storage, of two on the same memory, or of one mapped file.
    """
    return extents_overlap(memory_extents_of(one), memory_extents_of(other))


def memory_extents_of(tensor: torch.Tensor) -> tuple[MemoryExtent, ...]:
    """Return where a tensor's bytes lie.

    One extent in memory, and one in the file that is mapped there.
    """
    mapping = mapping_of(tensor)
    memory: MemoryExtent = (tensor.device, *addresses_of(tensor))
    if mapping is None:
        return (memory,)
    begin, end = extent_of(tensor)
    return memory, (mapping.inode, mapping.offset + begin, mapping.offset + end)


def any_overlap(places: Iterable[tuple[MemoryExtent, ...]]) -> bool:
    """Return whether any two of several tensors' extents share a byte."""
    by_place: dict[object, list[tuple[int, int]]] = defaultdict(list)
    for extents in places:
        for where, begin, end in extents:
            if begin < end:
                by_place[where].append((begin, end))
    ordered = (sorted(ranges) for ranges in by_place.values())
    return any(one[1] > other[0] for ranges in ordered for one, other in pairwise(ranges))


def extents_overlap(one: tuple[MemoryExtent, ...], other: tuple[MemoryExtent, ...]) -> bool:
    """Return whether two lists of extents share a byte."""
    for where, begin, end in one:
        for place, first, last in other:
            if begin < last and first < end and where == place:
                return True
    return False


def extent_of(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the byte range of its storage that a tensor shows.

    First byte and past the last.
    """
    begin = int(tensor.storage_offset()) * tensor.element_size()
    if tensor.numel() == 0 or tensor.is_contiguous():
        return begin, begin + tensor.numel() * tensor.element_size()
    span = 1 + sum((int(size) - 1) * int(stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + span * tensor.element_size()


def addresses_of(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the addresses of a tensor's first byte and past its last."""
    start = tensor.data_ptr()
    if tensor.is_contiguous():
        return start, start + tensor.nbytes
    begin, end = extent_of(tensor)
    return start, start + end - begin
