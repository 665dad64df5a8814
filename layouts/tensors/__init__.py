"""Dtypes, number formats and MXFP4 values of PyTorch tensors."""

from preshuffle.layouts.tensors.dtypes import (
    ACCEPTED_DTYPES,
    E8M0,
    FLOAT_DTYPES,
    VALUES_PER_ELEMENT,
    as_bytes,
    cast_back,
    dtype_name,
    needs_cast,
    survives_cast,
)
from preshuffle.layouts.tensors.kernel_launch import KernelLaunch
from preshuffle.layouts.tensors.memory import check_memory, check_no_stand_in, has_bytes
from preshuffle.layouts.tensors.numbers import decode_values, multiply_by_scales
from preshuffle.layouts.tensors.untraced import untraced

__all__ = [
    "ACCEPTED_DTYPES",
    "E8M0",
    "FLOAT_DTYPES",
    "VALUES_PER_ELEMENT",
    "KernelLaunch",
    "as_bytes",
    "cast_back",
    "check_memory",
    "check_no_stand_in",
    "decode_values",
    "dtype_name",
    "has_bytes",
    "multiply_by_scales",
    "needs_cast",
    "survives_cast",
    "untraced",
]
