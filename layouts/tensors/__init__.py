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
from preshuffle.layouts.tensors.memory import check_memory
from preshuffle.layouts.tensors.numbers import decode_values, expand_scales

__all__ = [
    "ACCEPTED_DTYPES",
    "E8M0",
    "FLOAT_DTYPES",
    "VALUES_PER_ELEMENT",
    "as_bytes",
    "cast_back",
    "check_memory",
    "decode_values",
    "dtype_name",
    "expand_scales",
    "needs_cast",
    "survives_cast",
]
