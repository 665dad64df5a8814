"""Where a tensor's bytes lie: in memory, and in the file that is mapped there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from preshuffle.layouts.file_stamps import Extent
from preshuffle.layouts.mapped import mapping_of


@dataclass(frozen=True, slots=True)
class Place:
    """The bytes of one tensor."""

    device: torch.device
    memory: Extent
    path: Path | None
    file: Extent

    @staticmethod
    def of(tensor: torch.Tensor) -> Place:
        """Find a tensor's bytes."""
        begin, end = extent_of(tensor)
        start = tensor.untyped_storage().data_ptr()
        mapping = mapping_of(tensor)
        path, offset = (mapping.path, mapping.offset) if mapping is not None else (None, 0)
        return Place(tensor.device, (start + begin, start + end), path, (offset + begin, offset + end))

    def meets(self, other: Place) -> bool:
        """Whether some byte is in both: the same memory, whichever storage holds it, or the same place of a file."""
        if self.device == other.device and _meet(self.memory, other.memory):
            return True
        return self.path is not None and self.path == other.path and _meet(self.file, other.file)


def _meet(one: Extent, other: Extent) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors show the same bytes, in one storage, in two of the same memory, or in one mapped file."""
    return Place.of(one).meets(Place.of(other))


def extent_of(tensor: torch.Tensor) -> tuple[int, int]:
    """The bytes of its storage that a tensor shows, first and past the last."""
    begin = int(tensor.storage_offset()) * tensor.element_size()
    if tensor.numel() == 0 or tensor.is_contiguous():
        return begin, begin + tensor.numel() * tensor.element_size()
    span = 1 + sum((int(size) - 1) * int(stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + span * tensor.element_size()
