"""Stamps: what a tensor's bytes are, recorded against the storage that holds them.

A Python attribute of a tensor is lost by ``nn.Parameter(t)``, ``.data``, ``.view(dtype)`` and ``.detach()``. The
storage is the same object under all of them, and dies with its last tensor; so does the stamp. A clone has another
storage and no stamp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from preshuffle.registry.words import Role, RowOrder, TensorDtype

_ATTRIBUTE: Final = "_preshuffle_stamps"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What was done to the bytes of one tensor.

    Attributes:
        recipe: the recipe's id.
        decision_digest: of the decision that was applied.
        role: which tensor of the layer it is.
        layout: the layout that its bytes are in.
        shape: torch's shape of the live values, before padding.
        source_shape: torch's shape of the tensor that was laid out.
        physical_shape: torch's shape of the laid-out tensor.
        pad: pads in the tensor's own count, (rows of each half, K).
        dtype: what the kernel gets.
        source_dtype: torch's dtype of the plain tensor, to which an inverse returns.
        source_order: row order of the plain tensor; None where it has no gate and up.
        order: row order under the layout.
        fill: the byte in the pads.
        padded_source: the plain tensor already had the physical shape.
        is_shuffled: whether AITER's tag belongs on the object that the kernel gets.
    """

    recipe: str
    decision_digest: str
    role: Role
    layout: str
    shape: tuple[int, ...]
    source_shape: tuple[int, ...]
    physical_shape: tuple[int, ...]
    pad: tuple[int, int]
    dtype: TensorDtype
    source_dtype: torch.dtype
    source_order: RowOrder | None
    order: RowOrder | None
    fill: int
    padded_source: bool
    is_shuffled: bool


def stamp_of(tensor: torch.Tensor) -> Stamp | None:
    """Return the stamp of the bytes that a tensor shows, or None where nothing is recorded of them.

    A view of part of a stamped tensor (one expert, say) has the whole tensor's stamp.
    """
    begin, end = extent_of(tensor)
    for (first, last), stamp in _stamps(tensor).items():
        if first <= begin and end <= last:
            return stamp
    return None


def put_stamp(tensor: torch.Tensor, stamp: Stamp) -> None:
    """Record what a tensor's bytes are; what was recorded of the same bytes before is forgotten."""
    drop_stamp(tensor)
    stamps = dict(_stamps(tensor))
    stamps[extent_of(tensor)] = stamp
    setattr(tensor.untyped_storage(), _ATTRIBUTE, stamps)


def drop_stamp(tensor: torch.Tensor) -> None:
    """Forget what was recorded of any of a tensor's bytes."""
    begin, end = extent_of(tensor)
    kept = {extent: stamp for extent, stamp in _stamps(tensor).items() if extent[1] <= begin or end <= extent[0]}
    setattr(tensor.untyped_storage(), _ATTRIBUTE, kept)


def _stamps(tensor: torch.Tensor) -> dict[tuple[int, int], Stamp]:
    stamps: dict[tuple[int, int], Stamp] = getattr(tensor.untyped_storage(), _ATTRIBUTE, {})
    return stamps


def extent_of(tensor: torch.Tensor) -> tuple[int, int]:
    """The bytes of its storage that a tensor shows, first and past the last."""
    begin = int(tensor.storage_offset()) * tensor.element_size()
    if tensor.numel() == 0:
        return begin, begin
    span = 1 + sum((int(size) - 1) * int(stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + span * tensor.element_size()
