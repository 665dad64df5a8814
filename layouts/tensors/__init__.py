"""dtypes, number formats and MXFP4 values of PyTorch tensors."""

from preshuffle.layouts.tensors.dtypes import (
    ACCEPTED,
    E8M0,
    FLOATS,
    VALUES_PER_ELEMENT,
    as_bytes,
    cast_back,
    casts,
    name_of,
    survives,
)
from preshuffle.layouts.tensors.numbers import decode, spread

__all__ = [
    "ACCEPTED",
    "E8M0",
    "FLOATS",
    "VALUES_PER_ELEMENT",
    "as_bytes",
    "cast_back",
    "casts",
    "decode",
    "name_of",
    "spread",
    "survives",
]
