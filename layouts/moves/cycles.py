"""In-place permutation of bands on a GPU by following cycles.

A band is a piece of memory that fits the registers of one program.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import product
from math import prod
from typing import Final

import torch

from preshuffle.layouts.moves.axes import BAND_BYTES, WORD, next_power_of_two, pop_tile_axes, warps_for
from preshuffle.layouts.moves.kernel_names import kernel_named
from preshuffle.layouts.moves.move import Move
from preshuffle.layouts.tensors import KernelLaunch

_LEAST_BAND: Final = 1 << 10
"""Fewest bytes of a band that is worth a step along a cycle."""


@dataclass(frozen=True, slots=True)
class Cycles:
    """Launch parameters of an in-place move that permutes whole bands.

    Bands change places within blocks; each program follows one cycle of bands.

    Attributes:
        blocks: how many blocks there are, each permuted in the same way.
        order: for each band of a block, the band whose bytes belong there.
        cycles: first band and length of each cycle.
        arguments: block and band in units, then the sizes and strides of the two tile axes.
    """

    blocks: int
    order: tuple[int, ...]
    cycles: tuple[tuple[int, int], ...]
    arguments: tuple[int, ...]
    constants: tuple[tuple[str, int], ...]
    warps: int
    offset: int
    _launch: KernelLaunch = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Prepare the launch, which finds its compiled kernel once."""
        words, tables = (WORD, self.offset), (WORD, 0)
        buffers, grid = (words, words, tables, tables), (self.blocks * len(self.cycles),)
        numbers, constants = (len(self.cycles), *self.arguments), dict(self.constants)
        kernel = partial(kernel_named, "permute_cycles")
        object.__setattr__(self, "_launch", KernelLaunch(kernel, grid, buffers, numbers, constants, self.warps))

    def start(self, buffer: torch.Tensor) -> None:
        """Permute a flat byte buffer on the current stream.

        Does not wait.
        """
        self._launch.start((buffer, buffer, *_tables(self, buffer.device)))


# Process-wide: the device memory that it keeps is, and every launch reads the same tables.
@lru_cache(maxsize=64)
def _tables(cycles: Cycles, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    order = torch.tensor(cycles.order, dtype=torch.int32, device=device)
    return order, torch.tensor(cycles.cycles, dtype=torch.int32, device=device)


# Process-wide: a pure function of frozen values that every layer repeats.
@lru_cache(maxsize=1024)
def plan_cycles(move: Move) -> Cycles | None:
    """Choose blocks and bands for an in-place move.

    None where bands do not change places as wholes.
    """
    if move.unit < WORD or move.source_offset != move.target_offset:
        return None
    if len(move.sizes) < 3:
        return None
    a, b = pop_tile_axes(axes := list(zip(move.sizes, move.source, move.target, strict=True)))
    band = a[0] * b[0]
    spans = [1 + sum((axis[0] - 1) * axis[side] for axis in (a, b)) for side in (1, 2)]
    moved = [axis for axis in axes if axis[1] != axis[2]]
    fixed = [axis for axis in axes if axis[1] == axis[2]]
    block = band * prod(axis[0] for axis in moved)
    tile_a, tile_b = next_power_of_two(a[0]), next_power_of_two(b[0])
    dense = spans == [band, band] and all(stride % band == 0 for axis in moved for stride in axis[1:])
    if not dense or len(fixed) > 1 or any(axis[1] != block for axis in fixed):
        return None
    if not moved or band * move.unit < _LEAST_BAND or tile_a * tile_b * move.unit > BAND_BYTES:
        return None
    order = [0] * (block // band)
    for digits in product(*(range(axis[0]) for axis in moved)):
        origin, place = (sum(d * axis[side] for d, axis in zip(digits, moved, strict=True)) // band for side in (1, 2))
        order[place] = origin
    words = move.unit // WORD
    return Cycles(
        fixed[0][0] if fixed else 1,
        tuple(order),
        _cycles(order),
        (block, band, a[0], b[0], a[1], b[1], a[2], b[2]),
        (("A", tile_a), ("B", tile_b), ("W", words)),
        warps_for(tile_a * tile_b * words // 2),
        move.source_offset * words,
    )


def _cycles(order: list[int]) -> tuple[tuple[int, int], ...]:
    """Return first band and length of each cycle, longest first."""
    seen = [False] * len(order)
    found: list[tuple[int, int]] = []
    for first in range(len(order)):
        length, place = 0, first
        while not seen[place]:
            seen[place] = True
            place, length = order[place], length + 1
        if length:
            found.append((first, length))
    return tuple(sorted(found, key=lambda cycle: -cycle[1]))
