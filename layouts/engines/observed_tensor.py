"""Observation of one tensor: shape, dtype, strides, tag and stamp."""

from __future__ import annotations

from math import prod
from typing import Final

import torch

from preshuffle.layouts.loader import AITER_TAG
from preshuffle.layouts.stamps import Stamp
from preshuffle.layouts.tensors import ACCEPTED_DTYPES, VALUES_PER_ELEMENT
from preshuffle.registry import TensorObservation
from preshuffle.registry.base.words import Role, TensorDtype
from preshuffle.registry.layer import WEIGHTS

_NAMES: Final[dict[torch.dtype, TensorDtype]] = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.float8_e4m3fn: "fp8_e4m3fn",
    torch.float8_e4m3fnuz: "fp8_e4m3fnuz",
    torch.int8: "i8",
    torch.uint8: "uint8",
}
_NEWER: Final[dict[str, TensorDtype]] = {"float4_e2m1fn_x2": "fp4x2", "int4": "i4x2", "float8_e8m0fnu": "e8m0"}
"""dtypes that not every torch has."""
_SCALES_IN_BYTES: Final = "e8m0"


def observe_tensor(
    role: Role, tensor: torch.Tensor, stamp: Stamp | None, *, packed: int | None = None
) -> TensorObservation:
    """Return what one tensor and its stamp show.

    Bytes without a stamp are in no known layout. The tag is looked at on this very object.

    Args:
        role: which tensor of the layer it is.
        tensor: the object that the kernel gets.
        stamp: what ``stamp_of`` says of it; None for bytes that nobody stamped.
        packed: values that a byte of an untyped weight (uint8) holds; None where it is not known.
    """
    known = stamp if stamp is not None and stamp.state == "applied" and _covers(stamp, tensor) else None
    shape = _in_values(role, tensor, known, packed)
    physical = _stamped_shape(known) if known is not None else shape
    return TensorObservation(
        layout=known.layout if known is not None and not known.aiter_bytes else None,
        is_shuffled=bool(getattr(tensor, AITER_TAG, False)) if role in WEIGHTS else None,
        contiguous=tensor.is_contiguous(),
        dtype=dtype_of(tensor, known),
        logical_shape=_logical_shape(known, physical),
        physical_shape=physical,
        passed_shape=shape if role.endswith("_weight_scale") or shape != physical else None,
        pad_fill=None if known is None else "zero" if known.fill == 0 else known.fill,
    )


def dtype_of(tensor: torch.Tensor, stamp: Stamp | None = None) -> TensorDtype | None:
    """Return a tensor's dtype by the registry's name.

    Kernels take e8m0 scales as bytes, too; fp4 and int4 in bytes stay ``uint8`` or ``i8``: AITER does not see them
    there. None for a dtype that the registry has no name for.
    """
    if stamp is not None:
        accepted = ACCEPTED_DTYPES[stamp.dtype]
        if tensor.dtype == accepted[0] or (stamp.dtype == _SCALES_IN_BYTES and tensor.dtype in accepted):
            return stamp.dtype
    return _NAMES.get(tensor.dtype) or _NEWER.get(str(tensor.dtype).removeprefix("torch."))


def _covers(stamp: Stamp, tensor: torch.Tensor) -> bool:
    """Return whether a tensor shows all bytes of what was stamped, and not one expert of it."""
    return prod(stamp.tensor_shape) == tensor.numel() * tensor.element_size() // _item(stamp, tensor)


def _item(stamp: Stamp, tensor: torch.Tensor) -> int:
    accepted = ACCEPTED_DTYPES[stamp.dtype]
    return tensor.element_size() if tensor.dtype in accepted else accepted[0].itemsize


def _in_values(role: Role, tensor: torch.Tensor, stamp: Stamp | None, packed: int | None) -> tuple[int, ...] | None:
    """Return a tensor's shape in values; None where how many a byte holds is not known."""
    if not tensor.dim():
        return (1,)
    shape, name = tuple(tensor.shape), dtype_of(tensor, stamp)
    if stamp is not None:
        each = VALUES_PER_ELEMENT.get(stamp.dtype, 1)
    elif name in VALUES_PER_ELEMENT:
        each = VALUES_PER_ELEMENT[name]
    elif name == "uint8" and role in WEIGHTS:
        if packed is None:
            return None
        each = packed
    else:
        each = 1
    return (*shape[:-1], shape[-1] * each) if len(shape) > 1 else shape


def _stamped_shape(stamp: Stamp) -> tuple[int, ...]:
    each = VALUES_PER_ELEMENT.get(stamp.dtype, 1)
    shape = stamp.physical_shape
    return (*shape[:-1], shape[-1] * each) if len(shape) > 1 else shape


def _logical_shape(stamp: Stamp | None, physical: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return the size without padding; None without a stamp, or where the tail of all experts is padded."""
    if stamp is None or physical is None or len(stamp.shape) != len(physical):
        return None
    if len(physical) == 1:
        return physical
    rows, k = stamp.pad
    halves = 2 if stamp.order is not None else 1
    experts, all_rows, *rest = physical
    return (experts, all_rows - halves * rows, *(size - k for size in rest))
