"""Launches that lay bytes out and write their pads at once."""

from __future__ import annotations

from functools import lru_cache
from math import gcd, prod
from typing import Final

import torch

from preshuffle.layouts.moves.axes import WORD, pop_tile_axes, warps_for
from preshuffle.layouts.moves.executor_triton import Launch, outer_arguments, tile_size
from preshuffle.layouts.moves.move import alignment_of
from preshuffle.registry.algebra.copy_plan import CopyPlan, PaddedBox

_OUTER: Final = 4
_COPY_BYTES: Final = 4 << 10
_TURN_BYTES: Final = 16 << 10

PaddedAxis = tuple[int, int, int, int, int]
"""Size, source stride, target stride, and what a step adds to the row and to K."""


def run_padded(plan: CopyPlan, source: torch.Tensor, target: torch.Tensor, fill: int) -> bool:
    """Lay out between two flat byte buffers of one GPU, pads included.

    Runs on the current stream and does not wait. Returns False, and does nothing, where several passes are needed.
    """
    launch = plan_padded(plan, alignment_of(source, target), fill)
    if launch is None:
        return False
    launch.start(source, target)
    return True


# Process-wide: a pure function of frozen values that every layer repeats.
@lru_cache(maxsize=1024)
def plan_padded(plan: CopyPlan, alignment: int, fill: int) -> Launch | None:
    """Choose kernel and tiles for a plan with pads.

    None where there are no pads, or no kernel takes them along.

    Args:
        plan: copies and fills.
        alignment: what both buffers' addresses are multiples of, in bytes.
        fill: the byte of pads.
    """
    padded = plan.padded
    if padded is None or alignment % WORD:
        return None
    word = int.from_bytes(bytes([fill]) * WORD, "little", signed=True)
    unit, axes, bounds = _in_units(padded, alignment)
    if unit >= WORD:
        return _copy(unit, axes, padded.box.plain_offset // unit, (*bounds, word))
    return _transpose(axes, padded.box.plain_offset, bounds, word) if unit == 1 else None


def _in_units(padded: PaddedBox, alignment: int) -> tuple[int, list[PaddedAxis], tuple[int, int]]:
    """Return the widest usable unit, with axes and bounds in it.

    Each unit is a pad or live as a whole.
    """
    box, inner = padded.box, len(padded.box.sizes) - 1
    axes: list[PaddedAxis] = list(
        zip(box.sizes, box.plain_strides, box.laid_strides, padded.rows, padded.k, strict=True)
    )
    if box.run == 1:
        return 1, axes, (padded.live_rows, padded.live_k)
    along_k = padded.k[inner] == 1  # else a row is one byte, and the run is one of rows
    steps, live = (padded.k, padded.live_k) if along_k else (padded.rows, padded.live_rows)
    numbers = (*box.plain_strides[:inner], *box.laid_strides[:inner], box.plain_offset, *steps[:inner], live)
    unit = gcd(16, alignment, box.run, *numbers)
    if unit == 1:
        return 1, axes, (padded.live_rows, padded.live_k)
    row_unit, k_unit = (1, unit) if along_k else (unit, 1)
    scaled = [
        (size, first // unit, second // unit, row // row_unit, k // k_unit)
        for size, first, second, row, k in axes[:inner]
    ]
    last = (box.sizes[inner] // unit, 1, 1, int(not along_k), int(along_k))
    return unit, [*scaled, last], (padded.live_rows // row_unit, padded.live_k // k_unit)


def _copy(unit: int, axes: list[PaddedAxis], offset: int, bounds: tuple[int, int, int]) -> Launch | None:
    a, b = pop_tile_axes(axes := [_NONE] * (2 - len(axes)) + axes)
    if len(axes) > _OUTER:
        return None
    words = unit // WORD
    tile_b = tile_size(b[0], 64)
    tile_a = tile_size(a[0], max(1, _COPY_BYTES // (tile_b * unit)))
    programs = prod(axis[0] for axis in axes) * -(-a[0] // tile_a) * -(-b[0] // tile_b)
    constants = {"A": tile_a, "B": tile_b, "W": words}
    arguments = (*_outer_arguments(axes), *_tile_arguments(a, b), *bounds)
    warps = warps_for(tile_a * tile_b * words)
    return Launch("copy_padded", programs, arguments, constants, warps, WORD, offset * words, 0, WORD)


def _transpose(axes: list[PaddedAxis], offset: int, bounds: tuple[int, int], fill: int) -> Launch | None:
    axes = list(axes)
    parted, joined = _pop_word(axes, side=1), _pop_word(axes, side=2)
    if (
        parted is None
        or joined is None
        or any(axis[2:] != (0, step) for axis, step in zip(parted, (1, 2), strict=True))
    ):
        return None
    live_rows, live_k = bounds
    read = [*(axis[1] for axis in axes), *(axis[0] for axis in joined), offset]
    written = [*(axis[2] for axis in axes), *(axis[1] for axis in parted)]
    half = WORD // 2
    halves = any(number % WORD for number in (*read, live_k))
    if any(number % WORD for number in written) or any(number % half for number in (*read, live_k)):
        return None
    element = half if halves else WORD
    axes = [(size, first // element, second // WORD, row, k) for size, first, second, row, k in axes]
    a, b = pop_tile_axes(axes := [_NONE] * (2 - len(axes)) + axes)
    if len(axes) > _OUTER:
        return None
    target_bits = [axis[1] // WORD for axis in parted]
    bits = (
        *(axis[0] // element for axis in joined), *(axis[2] for axis in joined), *(axis[3] for axis in joined),
        *target_bits,
    )  # fmt: skip
    tile_b = tile_size(b[0], 64)
    tile_a = tile_size(a[0], max(1, _TURN_BYTES // (16 * tile_b)))
    dense = b[2] == 1 and tile_b == b[0] and target_bits == [b[0], 2 * b[0]]
    constants = {"A": tile_a, "B": tile_b, "DENSE_TARGET": dense, "HALVES": halves}
    programs = prod(axis[0] for axis in axes) * -(-a[0] // tile_a) * -(-b[0] // tile_b)
    arguments = (*_outer_arguments(axes), *_tile_arguments(a, b), *bits, live_rows, live_k, fill)
    warps = warps_for(tile_a * tile_b * 4)
    return Launch("transpose_padded", programs, arguments, constants, warps, WORD, offset // element, 0, element)


_NONE: Final[PaddedAxis] = (1, 0, 0, 0, 0)


def _pop_word(axes: list[PaddedAxis], *, side: int) -> list[tuple[int, int, int, int]] | None:
    """Remove the axes that make up a word of one side.

    Returns the strides and steps of its two bits; None where no axes make up a word.
    """
    bits: list[tuple[int, int, int, int]] = []
    while len(bits) < 2:
        step = 1 << len(bits)
        index = next((i for i, axis in enumerate(axes) if axis[side] == step and axis[0] % 2 == 0), None)
        if index is None:
            return None
        size, first, second, row, k = axes.pop(index)
        bits.append((first, second, row, k))
        if size > 2:
            axes.insert(index, (size // 2, 2 * first, 2 * second, 2 * row, 2 * k))
    return bits


def _outer_arguments(axes: list[PaddedAxis]) -> tuple[int, ...]:
    """Return sizes (but the first), strides and steps of four outer axes."""
    padded = [_NONE] * (_OUTER - len(axes)) + axes
    return (*outer_arguments([axis[:3] for axis in axes]), *(axis[3] for axis in padded), *(axis[4] for axis in padded))


def _tile_arguments(a: PaddedAxis, b: PaddedAxis) -> tuple[int, ...]:
    """Return sizes, strides and steps of the two tile axes."""
    return tuple(value for pair in zip(a, b, strict=True) for value in pair)
