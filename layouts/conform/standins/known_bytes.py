"""Tensors of known bytes, the same in every process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import torch

_MULTIPLIER = 2654435761


def known_bytes(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor of known bytes.

    Byte ``i`` is the top byte of ``i * 2654435761 mod 2**32``.

    Args:
        shape: its last number counts bytes.
        dtype: of the result.
    """
    return _first_bytes(prod(shape)).view(*shape).view(dtype)


@lru_cache(maxsize=64)
def _first_bytes(count: int) -> torch.Tensor:
    numbers = torch.arange(count, dtype=torch.int64)
    return ((numbers * _MULTIPLIER % (1 << 32)) >> 24).to(torch.uint8)
