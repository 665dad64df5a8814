"""Where a tensor's bytes lie: in memory, and in the file that is mapped there."""

from __future__ import annotations

from pathlib import Path

import torch

from preshuffle.layouts.stamps.mapped import mapping_of

Place = tuple[torch.device | Path, int, int]
"""Some bytes: of which device's memory or which file, the first, and past the last."""


def overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors show the same bytes: of one storage, of two on the same memory, or of one mapped file."""
    return meet(places_of(one), places_of(other))


def places_of(tensor: torch.Tensor) -> tuple[Place, ...]:
    """Return where a tensor's bytes lie: in memory, and in the file that is mapped there."""
    begin, end = extent_of(tensor)
    start, mapping = tensor.data_ptr(), mapping_of(tensor)
    memory: Place = (tensor.device, start, start + end - begin)
    return (memory,) if mapping is None else (memory, (mapping.path, mapping.offset + begin, mapping.offset + end))


def meet(one: tuple[Place, ...], other: tuple[Place, ...]) -> bool:
    """Whether some byte is in both."""
    for where, begin, end in one:
        for place, first, last in other:
            if begin < last and first < end and where == place:
                return True
    return False


def extent_of(tensor: torch.Tensor) -> tuple[int, int]:
    """The bytes of its storage that a tensor shows, first and past the last."""
    begin = int(tensor.storage_offset()) * tensor.element_size()
    if tensor.numel() == 0 or tensor.is_contiguous():
        return begin, begin + tensor.numel() * tensor.element_size()
    span = 1 + sum((int(size) - 1) * int(stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + span * tensor.element_size()
