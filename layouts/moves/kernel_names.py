"""Triton kernels of moves, by name."""

from __future__ import annotations

from functools import cache
from typing import Any


# Process-wide: kernels are module attributes. Triton is imported with the first of them.
@cache
def kernel_named(name: str) -> Any:
    """Return a Triton kernel by its name."""
    from preshuffle.layouts.moves import triton_kernels, triton_padded

    return getattr(triton_padded if name.endswith("_padded") else triton_kernels, name)
