"""A move: one strided copy between two byte buffers.

It runs in the widest unit that both sides allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd, prod
from typing import Literal

import torch

from preshuffle.registry.algebra.copy_plan import Box

Direction = Literal["lay out", "take back"]


@dataclass(frozen=True, slots=True)
class Move:
    """Strided copy of ``prod(sizes)`` units.

    Attributes:
        unit: bytes that are moved at once.
        sizes: outermost first, in the order of the target's strides.
        source: the source's strides, in units.
        target: the target's strides, in units.
        source_offset: where the source begins, in units.
        target_offset: where the target begins, in units.
    """

    unit: int
    sizes: tuple[int, ...]
    source: tuple[int, ...]
    target: tuple[int, ...]
    source_offset: int
    target_offset: int

    @property
    def nbytes(self) -> int:
        """Bytes that the move copies."""
        return self.unit * prod(self.sizes)


# Process-wide: a pure function of frozen values that every layer repeats.
@lru_cache(maxsize=4096)
def move_of(box: Box, direction: Direction, alignment: int = 16) -> Move:
    """Convert a planned box into a move in one direction.

    Args:
        box: strides and offsets in bytes.
        direction: ``lay out`` writes the laid-out side, ``take back`` the plain one.
        alignment: what both buffers' addresses are multiples of, in bytes.
    """
    source, target = (box.plain_strides, box.laid_strides)
    source_offset, target_offset = box.plain_offset, box.laid_offset
    if direction == "take back":
        source, target = target, source
        source_offset, target_offset = target_offset, source_offset
    unit = gcd(gcd(16, alignment), box.run)
    inner = 1 if box.run > 1 else 0
    for number in (*source[: len(source) - inner], *target[: len(target) - inner], source_offset, target_offset):
        unit = gcd(unit, number)
    axes = list(zip(box.sizes, source, target, strict=True))
    if inner:
        size, _, _ = axes.pop()
        axes.append((size // unit, unit, unit))
    axes.sort(key=lambda axis: axis[2], reverse=True)
    merged: list[tuple[int, int, int]] = []
    for size, first, second in axes:
        if size == 1:
            continue
        if merged and merged[-1][1] == size * first and merged[-1][2] == size * second:
            size *= merged.pop()[0]
        merged.append((size, first, second))
    return Move(
        unit,
        tuple(size for size, _, _ in merged),
        tuple(first // unit for _, first, _ in merged),
        tuple(second // unit for _, _, second in merged),
        source_offset // unit,
        target_offset // unit,
    )


def alignment_of(*buffers: torch.Tensor) -> int:
    """Return the common alignment of flat byte buffers.

    What their addresses and storage offsets are multiples of, 16 at most.
    """
    alignment = 16
    for buffer in buffers:
        alignment = gcd(alignment, gcd(int(buffer.storage_offset()), buffer.data_ptr()) or 16)
    return alignment
