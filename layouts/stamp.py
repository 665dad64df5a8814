"""Stamps: what a tensor's bytes are, recorded against the storage that holds them.

A Python attribute of a tensor is lost by ``nn.Parameter(t)``, ``.data``, ``.view(dtype)`` and ``.detach()``. The
storage is the same object under all of them, and dies with its last tensor; so does the stamp. A clone has another
storage and no stamp.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal, get_args

import torch

from preshuffle.registry import LayoutError
from preshuffle.registry.words import Role, RowOrder, TensorDtype

_ATTRIBUTE: Final = "_preshuffle_stamps"
_HEADER: Final = "preshuffle."

State = Literal["applied", "reloading", "broken"]


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
        state: ``applied``; ``reloading`` while plain bytes are being written over the laid-out ones; ``broken`` while a
            move in place is under way, or if it was interrupted: the bytes are neither plain nor laid out.
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
    state: State = "applied"

    def to_text(self) -> str:
        """Write the stamp as JSON, for a safetensors header."""
        values = asdict(self)
        values["source_dtype"] = str(self.source_dtype).removeprefix("torch.")
        return json.dumps(values, separators=(",", ":"))

    @staticmethod
    def from_text(text: str) -> Stamp:
        """Read a stamp from its JSON.

        Raises:
            LayoutError: the text is no stamp.
        """
        try:
            values = json.loads(text)
            for name in ("shape", "source_shape", "physical_shape", "pad"):
                values[name] = tuple(int(size) for size in values[name])
            values["source_dtype"] = getattr(torch, values["source_dtype"])
            stamp = Stamp(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise LayoutError(f"not a stamp ({error}): {text[:80]!r}") from None
        if not isinstance(stamp.source_dtype, torch.dtype) or stamp.state not in get_args(State):
            raise LayoutError(f"not a stamp: {text[:80]!r}")
        return stamp


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


def stamps_to_metadata(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return the stamps of named tensors for the metadata of a safetensors file; unstamped tensors are left out."""
    found = {name: stamp_of(tensor) for name, tensor in tensors.items()}
    return {f"{_HEADER}{name}": stamp.to_text() for name, stamp in found.items() if stamp is not None}


def stamps_from_metadata(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None) -> None:
    """Stamp tensors that were read from a safetensors file with what its metadata says of them.

    Raises:
        LayoutError: the metadata is damaged, or a tensor has another shape than its stamp says; none is stamped then.
    """
    stamps: dict[str, Stamp] = {}
    for key, text in (metadata or {}).items():
        name = key.removeprefix(_HEADER)
        if key.startswith(_HEADER) and name in tensors:
            stamp = Stamp.from_text(text)
            if tuple(tensors[name].shape) != stamp.physical_shape:
                raise LayoutError(
                    f"{name} has shape {tuple(tensors[name].shape)}; its stamp says {stamp.physical_shape}"
                )
            stamps[name] = stamp
    for name, stamp in stamps.items():
        put_stamp(tensors[name], stamp)


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
