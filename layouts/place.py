"""Where a tensor's bytes lie: in memory, and in the file that is mapped there."""

from __future__ import annotations

import torch

from preshuffle.layouts.file_stamps import Extent
from preshuffle.layouts.mapped import mapping_of


def overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors show the same bytes: of one storage, of two on the same memory, or of one mapped file."""
    if one.device == other.device and _meet(_in_memory(one), _in_memory(other)):
        return True
    first, second = mapping_of(one), mapping_of(other)
    if first is None or second is None or first.path != second.path:
        return False
    return _meet(_moved(extent_of(one), first.offset), _moved(extent_of(other), second.offset))


def _in_memory(tensor: torch.Tensor) -> Extent:
    begin, end = extent_of(tensor)
    start = tensor.data_ptr()
    return start, start + end - begin


def _moved(extent: Extent, by: int) -> Extent:
    return extent[0] + by, extent[1] + by


def _meet(one: Extent, other: Extent) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def extent_of(tensor: torch.Tensor) -> tuple[int, int]:
    """The bytes of its storage that a tensor shows, first and past the last."""
    begin = int(tensor.storage_offset()) * tensor.element_size()
    if tensor.numel() == 0 or tensor.is_contiguous():
        return begin, begin + tensor.numel() * tensor.element_size()
    span = 1 + sum((int(size) - 1) * int(stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + span * tensor.element_size()
