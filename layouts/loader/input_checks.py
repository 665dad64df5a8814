"""Checks of a plain tensor's dtype and shape against a decision.

Nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from preshuffle.layouts.tensors import ACCEPTED_DTYPES, FLOAT_DTYPES, VALUES_PER_ELEMENT, dtype_name
from preshuffle.registry import LayoutError, TensorDecision
from preshuffle.registry.base.words import Role


@dataclass(frozen=True, slots=True)
class Shapes:
    """One tensor's shapes in torch's elements.

    Attributes:
        live: of the plain values.
        physical: of the laid-out tensor.
        padded: the plain tensor already has the physical shape.
        last: whether it is the last rank's; None where the ranks do not differ.
    """

    live: tuple[int, ...]
    physical: tuple[int, ...]
    padded: bool
    last: bool | None


def torch_shape(shape: tuple[int, ...], decided: TensorDecision, dtype: torch.dtype | None = None) -> tuple[int, ...]:
    """Convert a shape in values to torch's elements.

    An fp4x2 element holds two values, a word of int4 eight.

    Args:
        shape: in values.
        decided: whose shape it is.
        dtype: that carries the values; what the kernel gets by default.
    """
    per_element = VALUES_PER_ELEMENT.get(decided.dtype, 1)
    if dtype is not None and per_element > 1:
        per_element *= dtype.itemsize
    flat = len(shape) == 2 and len(decided.logical_shape) == 3
    return (*shape[:-1], shape[-1] // per_element) if len(shape) == 3 or flat else shape


def source_shape(shape: tuple[int, ...], decided: TensorDecision, dtype: torch.dtype) -> tuple[int, ...]:
    """Return torch's shape of plain values.

    int4 that is packed later comes as one value in each int8.
    """
    return shape if "pack_int4" in decided.steps else torch_shape(shape, decided, dtype)


def by_expert(role: Role, tensor: torch.Tensor, decided: TensorDecision) -> torch.Tensor:
    """Return a contiguous tensor as ``[experts, rows, K]``.

    A weight may come in a checkpoint's blocks ``[experts, rows, groups, bytes of a group]``, an MX scale as
    ``[experts * rows, K]``; any other tensor is returned as it is.
    """
    if tensor.dim() == 4 and role.endswith("_weight"):
        return tensor.flatten(2)
    if decided.passed_shape is None or tensor.dim() != 2:
        return tensor
    for shape in (decided.logical_shape, decided.short_shape, decided.physical_shape):
        if shape is not None and tuple(tensor.shape) == (shape[0] * shape[1], shape[2]):
            return tensor.view(shape)
    return tensor


def passed_shape(decided: TensorDecision) -> tuple[int, ...] | None:
    """Return the passed tensor's shape; None if it is physical."""
    return None if decided.passed_shape is None else torch_shape(decided.passed_shape, decided)


def check_dtype(role: Role, tensor: torch.Tensor, decided: TensorDecision) -> torch.dtype:
    """Return the dtype of the laid-out tensor.

    Raises:
        LayoutError: the tensor's dtype is no carrier of what was decided.
    """
    valid = _valid_dtypes(role, decided)
    if tensor.dtype not in valid:
        names = ", ".join(dtype_name(dtype) for dtype in valid)
        raise LayoutError(f"{role} is {dtype_name(tensor.dtype)}; valid: {names}")
    if decided.dtype == "e8m0":  # a scale keeps the one-byte dtype that its engine gave it; kernels take either
        return tensor.dtype
    if decided.dtype == "i4x2" and tensor.dtype.itemsize == 4:  # words of eight, which a kernel knows as uint32
        return torch.uint32
    return ACCEPTED_DTYPES[decided.dtype][0]


def _valid_dtypes(role: Role, decided: TensorDecision) -> tuple[torch.dtype, ...]:
    if "pack_int4" in decided.steps:
        return (torch.int8,)
    if "fnuz" in decided.steps and decided.dtype == "fp8_e4m3fnuz":
        return (torch.float8_e4m3fn, torch.uint8)
    if ACCEPTED_DTYPES[decided.dtype][0] in FLOAT_DTYPES and not role.endswith("_weight"):
        return FLOAT_DTYPES
    return ACCEPTED_DTYPES[decided.dtype]


def check_shape(
    role: Role, tensor: torch.Tensor, decided: TensorDecision, target: torch.dtype, last_rank: bool
) -> Shapes:
    """Match a tensor's shape with those of a decision.

    Plain, plain on the last rank, or padded.

    A scale of one number for each row may come without the last dimension.

    Raises:
        LayoutError: it has none of them; they are named.
    """
    found = tuple(tensor.shape)
    logical = source_shape(decided.logical_shape, decided, tensor.dtype)
    short = source_shape(decided.short_shape or decided.logical_shape, decided, tensor.dtype)
    padded = source_shape(decided.physical_shape, decided, tensor.dtype)
    physical = torch_shape(decided.physical_shape, decided, target)
    if len(found) == 2 and len(logical) == len(padded) == 3 and logical[2] == padded[2] == 1:
        logical, short, padded, physical = logical[:2], short[:2], padded[:2], physical[:2]
    live, last = (short if last_rank else logical), last_rank
    if found in (live, short):
        live, last = found, found == short
    if found not in (live, padded):
        valid = {"plain": live, "plain on the last rank": short, "padded": padded}
        expected = ", ".join(f"{shape} ({what})" for what, shape in valid.items() if what == "plain" or shape != live)
        raise LayoutError(f"{role} has shape {found}; valid: {expected}")
    return Shapes(live, physical, found == padded, None if short == logical else last)
