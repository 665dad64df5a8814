"""Axes and tile sizes of GPU moves."""

from __future__ import annotations

from typing import Final, TypeVar

WORD: Final = 4
BAND_BYTES: Final = 64 << 10
"""Most bytes that one program turns round when it works in place: what gfx942 has of local memory."""

Axis = tuple[int, int, int]  # size, source stride, target stride
AnyAxis = TypeVar("AnyAxis", bound=tuple[int, ...])  # more may follow


def pop_tile_axes(axes: list[AnyAxis]) -> tuple[AnyAxis, AnyAxis]:
    """Remove and return the two tile axes of a move.

    The one on which the source is densest, and the one on which the target is.
    """
    b = axes.pop(min(range(len(axes)), key=lambda i: axes[i][2] or axes[i][0]))
    a = axes.pop(min(range(len(axes)), key=lambda i: axes[i][1] or axes[i][0]))
    return a, b


def next_power_of_two(size: int) -> int:
    """Return the smallest power of two that is not below a size."""
    return 1 << (size - 1).bit_length()


def warps_for(words: int) -> int:
    """Return how many warps a program gets for a number of words."""
    return 4 if words <= 2048 else 8 if words <= 4096 else 16


def pop_word_axes(axes: list[Axis], *, source: bool) -> tuple[int, int] | None:
    """Remove the axes that make up one word of four bytes.

    Looks on one side (``source`` or target) and returns the other side's strides of the word's two bits; None where
    no axes make up a word.
    """
    here = 1 if source else 2
    strides: list[int] = []
    while len(strides) < 2:
        step = 1 << len(strides)
        index = next((i for i, axis in enumerate(axes) if axis[here] == step and axis[0] % 2 == 0), None)
        if index is None:
            return None
        size, first, second = axes.pop(index)
        strides.append(second if source else first)
        if size > 2:
            axes.insert(index, (size // 2, 2 * first, 2 * second))
    return strides[0], strides[1]
