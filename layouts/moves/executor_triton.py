"""Executor of moves on a GPU: choice of kernel, tiles and grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import permutations
from math import prod
from typing import Any, Final

import torch

from preshuffle.layouts.moves import executor_torch
from preshuffle.layouts.moves.axes import (
    BAND_BYTES,
    WORD,
    Axis,
    next_power_of_two,
    pop_tile_axes,
    pop_word_axes,
    warps_for,
)
from preshuffle.layouts.moves.cycles import Cycles, plan_cycles
from preshuffle.layouts.moves.half_join import plan_half_join
from preshuffle.layouts.moves.kernel_names import kernel_named
from preshuffle.layouts.moves.move import Move, alignment_of
from preshuffle.layouts.tensors import KernelLaunch

_OUTER: Final = 4
_TILE_BYTES: Final = 4 << 10


@dataclass(frozen=True, slots=True)
class Launch:
    """Launch parameters of one kernel.

    Name, grid, arguments (behind source and target), and the bytes of one element of its target and of its source.
    """

    kernel: str
    programs: int
    arguments: tuple[int, ...]
    constants: dict[str, Any]
    warps: int
    element: int
    source_offset: int
    target_offset: int
    source_element: int
    _launch: KernelLaunch = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Prepare the launch, which finds its compiled kernel once."""
        buffers = (self.source_element, self.source_offset), (self.element, self.target_offset)
        kernel, grid = partial(kernel_named, self.kernel), (self.programs,)
        launch = KernelLaunch(kernel, grid, buffers, self.arguments, self.constants, self.warps)
        object.__setattr__(self, "_launch", launch)

    def start(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Start the kernel between two flat byte buffers.

        Runs on the current stream and does not wait.
        """
        self._launch.start((source, target))


def run_move(move: Move, source: torch.Tensor, target: torch.Tensor) -> None:
    """Copy between two flat byte buffers of one GPU.

    They do not overlap. Runs on the current stream and does not wait.
    """
    launch = plan_launch(move)
    if launch is None or alignment_of(source, target) % launch.element:
        executor_torch.run_move(move, source, target)
    else:
        launch.start(source, target)


def run_in_place(move: Move, buffer: torch.Tensor, scratch: torch.Tensor) -> bool:
    """Permute a flat byte buffer in place.

    Returns False, and does nothing, where the move does not consist of bands.

    A band is a piece of memory that fits the registers of one program, which reads all of it before it writes. Bands
    that change places follow their cycles. Where two bands are mixed into one, they are joined by way of scratch, as
    large as ``scratch_in_place`` says; without it they are brought together first.
    """
    joined = plan_half_join(move) if scratch.numel() else None
    if joined is not None:
        joined.start(buffer, scratch)
        return True
    steps = plan_in_place(move)
    for step in steps:
        if isinstance(step, Launch):
            step.start(buffer, buffer)
        else:
            step.start(buffer)
    return bool(steps)


def scratch_in_place(move: Move, device: torch.device, scratch_bytes: int) -> int | None:
    """Return the scratch bytes that ``run_in_place`` needs.

    0 for most moves; None where it cannot do the move.
    """
    if not plan_in_place(move):
        return None
    joined = plan_half_join(move)
    return joined.scratch_for(device, scratch_bytes) if joined is not None else 0


# Process-wide: a pure function of frozen values that every layer repeats.
@lru_cache(maxsize=1024)
def plan_in_place(move: Move) -> tuple[Launch | Cycles, ...]:
    """Plan an in-place move of one or two passes.

    Empty where the move has to go through scratch.
    """
    one = plan_launch(move, in_place=True) or plan_cycles(move)
    if one is not None:
        return (one,)
    halves = _split_in_two_passes(move)
    if halves is None:
        return ()
    first, second = plan_cycles(halves[0]), plan_launch(halves[1], in_place=True)
    return (first, second) if first is not None and second is not None else ()


def _split_in_two_passes(move: Move) -> tuple[Move, Move] | None:
    """Split a move that mixes distant bands into two moves.

    The first brings those bands together as wholes, the second permutes within them.

    ``spread`` is the axis that is outside on the source and inside on the target (gate and up), ``along`` the one that
    counts bands within each half of the source.
    """
    axes: list[Axis] = list(zip(move.sizes, move.source, move.target, strict=True))
    for spread, along in permutations(axes, 2):
        band = along[1]
        if spread[1] != along[0] * band or along[2] != spread[0] * band or band * move.unit % 16:
            continue
        outer = [axis for axis in axes if axis[1] == axis[2] == spread[0] * along[0] * band]
        inner = [axis for axis in axes if axis[1] < band]
        if len(outer) + len(inner) + 2 != len(axes) or prod(axis[0] for axis in inner) != band or len(outer) > 1:
            continue
        wide = 16 // move.unit
        if move.source_offset != move.target_offset or move.source_offset % wide:
            return None
        bands = [*outer, (along[0], band, along[2]), (spread[0], spread[1], band)]
        gathered = [(size, first // wide, second // wide) for size, first, second in bands] + [
            (band // wide, 1, 1),
            (1, 0, 0),
        ]
        moved = {along: (along[0], along[2], along[2]), spread: (spread[0], band, spread[2])}
        offset = move.source_offset // wide
        return _move(16, gathered, offset), _move(
            move.unit, [moved.get(axis, axis) for axis in axes], move.source_offset
        )
    return None


def _move(unit: int, axes: list[Axis], offset: int) -> Move:
    sizes, source, target = zip(*axes, strict=True)
    return Move(unit, sizes, source, target, offset, offset)


# Process-wide: a pure function of frozen values that every layer repeats.
@lru_cache(maxsize=4096)
def plan_launch(move: Move, *, in_place: bool = False) -> Launch | None:
    """Choose kernel and tiles for a move.

    None where torch's own copy has to do it.

    Args:
        move: what to copy.
        in_place: every program must keep to a band of its own.
    """
    axes: list[Axis] = list(zip(move.sizes, move.source, move.target, strict=True))
    if move.unit >= WORD:
        return _permute_bands(move, axes) if in_place else _copy_units(move, list(axes)) or _gather(move, axes)
    fast = _transpose_words(move, list(axes), in_place) if move.unit == 1 else None
    return fast or (None if in_place else _gather(move, axes))


def _copy_units(move: Move, axes: list[Axis]) -> Launch | None:
    a, b = pop_tile_axes(axes := [(1, 0, 0)] * (2 - len(axes)) + axes)
    if len(axes) > _OUTER:
        return None
    words = move.unit // WORD
    tile_b = tile_size(b[0], 64)
    tile_a = tile_size(a[0], max(1, _TILE_BYTES // (tile_b * move.unit)))
    programs = prod(axis[0] for axis in axes) * -(-a[0] // tile_a) * -(-b[0] // tile_b)
    arguments = (*outer_arguments(axes), a[0], b[0], a[1], b[1], a[2], b[2])
    constants = {"A": tile_a, "B": tile_b, "W": words}
    offsets = move.source_offset * words, move.target_offset * words
    warps = warps_for(tile_a * tile_b * words)
    return Launch("copy_units", programs, arguments, constants, warps, WORD, *offsets, WORD)


def _permute_bands(move: Move, axes: list[Axis]) -> Launch | None:
    a, b = pop_tile_axes(axes := [(1, 0, 0)] * (2 - len(axes)) + axes)
    if len(axes) > _OUTER or not _in_bands(axes, [a, b]) or move.source_offset != move.target_offset:
        return None
    words = move.unit // WORD
    tile_a, tile_b = next_power_of_two(a[0]), next_power_of_two(b[0])
    if tile_a * tile_b * move.unit > BAND_BYTES:
        return None
    arguments = (*outer_arguments(axes)[: 3 + _OUTER], a[0], b[0], a[1], b[1], a[2], b[2])
    constants = {"A": tile_a, "B": tile_b, "W": words}
    offset = move.source_offset * words
    warps = warps_for(tile_a * tile_b * words // 4)
    programs = prod(axis[0] for axis in axes)
    return Launch("permute_bands", programs, arguments, constants, warps, WORD, offset, offset, WORD)


def _transpose_words(move: Move, axes: list[Axis], in_place: bool) -> Launch | None:
    """Plan a byte transpose in words of four bytes.

    A word holds four neighbours of the source, another four neighbours of the target.
    """
    parted, joined = pop_word_axes(axes, source=True), pop_word_axes(axes, source=False)
    if parted is None or joined is None:
        return None
    read = [*(axis[1] for axis in axes), *joined, move.source_offset]
    written = [*(axis[2] for axis in axes), *parted, move.target_offset]
    half = WORD // 2
    halves = any(number % WORD for number in read)
    if any(number % WORD for number in written) or any(number % half for number in read) or (halves and in_place):
        return None
    element = half if halves else WORD
    axes = [(size, first // element, second // WORD) for size, first, second in axes]
    a, b = pop_tile_axes(axes := [(1, 0, 0)] * (2 - len(axes)) + axes)
    if len(axes) > _OUTER:
        return None
    target_bits, source_bits = [stride // WORD for stride in parted], [stride // element for stride in joined]
    limit = BAND_BYTES if in_place else 4 * _TILE_BYTES
    tile_b = next_power_of_two(b[0]) if in_place else tile_size(b[0], 64)
    tile_a = next_power_of_two(a[0]) if in_place else tile_size(a[0], max(1, limit // (16 * tile_b)))
    band = [a, b, *((2, 0, bit) for bit in target_bits), *((2, bit, 0) for bit in source_bits)]
    if tile_a * tile_b * 16 > limit or (in_place and not _in_bands(axes, band)):
        return None
    dense = b[2] == 1 and tile_b == b[0] and target_bits == [b[0], 2 * b[0]]
    constants = {"A": tile_a, "B": tile_b, "DENSE_TARGET": dense, "HALVES": halves}
    programs = prod(axis[0] for axis in axes) * -(-a[0] // tile_a) * -(-b[0] // tile_b)
    arguments = (*outer_arguments(axes), a[0], b[0], a[1], b[1], a[2], b[2], *source_bits, *target_bits)
    offsets = move.source_offset // element, move.target_offset // WORD
    warps = warps_for(tile_a * tile_b * 4)
    return Launch("transpose_words", programs, arguments, constants, warps, WORD, *offsets, element)


def _gather(move: Move, axes: list[Axis]) -> Launch | None:
    """Plan any other move, one element at a time."""
    element = min(move.unit, 8)
    if move.unit > element:
        axes = [*((size, 2 * first, 2 * second) for size, first, second in axes), (2, 1, 1)]
    axes.sort(key=lambda axis: axis[2])
    inner: list[Axis] = []
    while axes and len(inner) < 4 and prod(axis[0] for axis in inner) * axes[0][0] <= 512:
        inner.append(axes.pop(0))
    inner = [(1, 0, 0)] * (4 - len(inner)) + inner[::-1]
    a = axes.pop(min(range(len(axes)), key=lambda i: (axes[i][0] < 8, axes[i][1]))) if axes else (1, 0, 0)
    if len(axes) > _OUTER:
        return None
    room = next_power_of_two(prod(axis[0] for axis in inner))
    tile_a = tile_size(a[0], max(1, 2048 // room))
    programs = prod(axis[0] for axis in axes) * -(-a[0] // tile_a)
    strides = (*(axis[1] for axis in inner), *(axis[2] for axis in inner))
    arguments = (*outer_arguments(axes), a[0], a[1], a[2], *strides)
    constants = {"A": tile_a, "ROOM": room, **{f"I{number}": axis[0] for number, axis in enumerate(inner)}}
    scale = move.unit // element
    offsets = move.source_offset * scale, move.target_offset * scale
    return Launch("gather_units", programs, arguments, constants, 4, element, *offsets, element)


def _in_bands(outer: list[Axis], inner: list[Axis]) -> bool:
    """Return whether each program keeps to a band of its own.

    Outer axes have equal strides on both sides, of at least what the inner axes span.
    """
    span = 1 + max(sum((axis[0] - 1) * axis[side] for axis in inner) for side in (1, 2))
    return all(first == second and first >= span for size, first, second in outer if size > 1)


def outer_arguments(axes: list[Axis]) -> tuple[int, ...]:
    """Return sizes (but the first) and strides of four outer axes.

    Missing axes are added in front with size 1.
    """
    padded = [(1, 0, 0)] * (_OUTER - len(axes)) + axes
    return (*(axis[0] for axis in padded[1:]), *(axis[1] for axis in padded), *(axis[2] for axis in padded))


def tile_size(size: int, most: int) -> int:
    """Return a tile size for an axis.

    All of a short axis, else the power of two up to ``most`` that wastes least; of equals the largest.
    """
    if next_power_of_two(size) <= most:
        return next_power_of_two(size)
    powers = [1 << bit for bit in range(most.bit_length()) if 1 << bit <= most]
    return max(powers, key=lambda tile: (-(-(-size // tile) * tile * 4 // size), tile))
