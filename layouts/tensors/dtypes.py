"""Torch dtypes by the registry's names, and tensors as bytes."""

from __future__ import annotations

from typing import Final

import torch

from preshuffle.registry.base.errors import LayoutError
from preshuffle.registry.base.words import TensorDtype

FP4X2: Final[torch.dtype] = getattr(torch, "float4_e2m1fn_x2", torch.uint8)
I4X2: Final[torch.dtype] = getattr(torch, "int4", torch.uint8)
E8M0: Final[torch.dtype] = getattr(torch, "float8_e8m0fnu", torch.uint8)

ACCEPTED_DTYPES: Final[dict[TensorDtype, tuple[torch.dtype, ...]]] = {
    "bf16": (torch.bfloat16,),
    "fp16": (torch.float16,),
    "fp32": (torch.float32,),
    "fp8_e4m3fn": (torch.float8_e4m3fn,),
    "fp8_e4m3fnuz": (torch.float8_e4m3fnuz,),
    "fp4x2": (FP4X2, torch.uint8, torch.int8),
    "i4x2": (I4X2, torch.uint8, torch.int8, torch.int32, torch.uint32),
    "i8": (torch.int8,),
    "e8m0": (torch.uint8, E8M0),
    "uint8": (torch.uint8,),
}
"""Torch dtypes that may carry a dtype. The first one is what a kernel recognises: AITER does not see fp4 in uint8."""

VALUES_PER_ELEMENT: Final[dict[TensorDtype, int]] = {"fp4x2": 2, "i4x2": 2}
"""Values that one byte holds, where it is not 1."""

FLOAT_DTYPES: Final = (torch.bfloat16, torch.float16, torch.float32)


def dtype_name(dtype: torch.dtype) -> str:
    """Return a dtype's name without the prefix ``torch.``."""
    return str(dtype).removeprefix("torch.")


def needs_cast(source: torch.dtype, target: torch.dtype) -> bool:
    """Return whether a conversion between two dtypes changes values.

    Dtypes of one byte are only renamed; floats are cast.
    """
    return source in FLOAT_DTYPES and source != target


def cast_back(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Cast floats to their original dtype.

    A bf16 NaN keeps its bits, which torch's own cast drops.
    """
    if (values.dtype, dtype) != (torch.float32, torch.bfloat16):
        return values.to(dtype)
    upper = (values.view(torch.int32) >> 16).to(torch.int16).view(dtype)
    return torch.where(values.isnan(), upper, values.to(dtype))


def survives_cast(values: torch.Tensor, through: torch.dtype, source: torch.dtype) -> bool:
    """Return whether a dtype round trip keeps values bit for bit.

    They are stored as ``through`` and read back as ``source``.
    """
    if values.dtype == source and (through == source or (source, through) == (torch.bfloat16, torch.float32)):
        return True
    back = cast_back(values.to(through), source).to(values.dtype)
    return back.contiguous().view(torch.uint8).equal(values.contiguous().view(torch.uint8))


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """View a contiguous tensor's storage as flat uint8.

    No byte is copied.

    Raises:
        LayoutError: the tensor is not contiguous.
    """
    if not tensor.is_contiguous():
        raise LayoutError(f"a tensor of shape {tuple(tensor.shape)} is not contiguous (strides {tensor.stride()})")
    return tensor.view(-1).view(torch.uint8)
