"""Packing of laid-out int8 values into int4, as AITER reads it."""

from __future__ import annotations

from typing import Final

import torch

PACK: Final = 8
"""int4 values that are packed together, neighbours in the laid-out bytes."""


def pack_int4(laid: torch.Tensor) -> torch.Tensor:
    """Pack laid-out int8 values into int4.

    Of each 8, value i and value i + 4 make byte i, the first in its low bits.

    Args:
        laid: flat uint8 bytes, each one value.

    Returns:
        Half as many flat uint8 bytes.
    """
    eights = laid.view(-1, 2, PACK // 2)
    return ((eights[:, 0] & 0xF) | (eights[:, 1] << 4)).view(-1)


def unpack_int4(packed: torch.Tensor) -> torch.Tensor:
    """Unpack int4 to flat int8 bytes, undoing ``pack_int4``."""
    fours = packed.view(-1, 1, PACK // 2)
    nibbles = torch.cat([fours & 0xF, fours >> 4], dim=1)
    return torch.where(nibbles > 7, nibbles | 0xF0, nibbles).view(-1)
