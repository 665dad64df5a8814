"""Executor of moves by torch's strided copies.

Runs on any device; on a CPU it uses all cores.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import prod
from typing import Final

import torch

from preshuffle.layouts.moves.move import Move

DTYPES: Final[dict[int, torch.dtype]] = {
    16: torch.complex128,
    8: torch.int64,
    4: torch.int32,
    2: torch.int16,
    1: torch.uint8,
}
_LONG_LOOP: Final = 8
_MOST_COPIES: Final = 16


def run_move(move: Move, source: torch.Tensor, target: torch.Tensor) -> None:
    """Copy between two flat byte buffers that do not overlap."""
    prepare_move(move, source, target)(0, 0)


def prepare_move(move: Move, source: torch.Tensor, target: torch.Tensor) -> Callable[[int, int], None]:
    """Prepare a move that runs several times at shifted offsets.

    Each run is shifted by some units in the source and in the target.

    torch's innermost loop runs along the target's smallest stride. Where that axis is short (two rows of a scale tile,
    say), it is unrolled into copies of their own, so that the loop that remains is long: eight times faster for scales.
    """
    wide_source, wide_target = _as_units(source, move.unit), _as_units(target, move.unit)
    first_source, first_target = int(wide_source.storage_offset()), int(wide_target.storage_offset())
    inner = len(move.sizes)
    while inner > 1 and move.sizes[inner - 1] < _LONG_LOOP and prod(move.sizes[inner - 1 :]) <= _MOST_COPIES:
        inner -= 1
    if inner and move.sizes[inner - 1] < _LONG_LOOP:
        inner = len(move.sizes)
    sizes, reads, writes = move.sizes[:inner], move.source[:inner], move.target[:inner]
    places = [
        (
            first_source + move.source_offset + _dot_product(position, move.source[inner:]),
            first_target + move.target_offset + _dot_product(position, move.target[inner:]),
        )
        for position in product(*(range(size) for size in move.sizes[inner:]))
    ]

    def run(source_shift: int, target_shift: int) -> None:
        for read, write in places:
            wide_target.as_strided(sizes, writes, write + target_shift).copy_(
                wide_source.as_strided(sizes, reads, read + source_shift)
            )

    return run


def _dot_product(position: tuple[int, ...], strides: tuple[int, ...]) -> int:
    return sum(p * s for p, s in zip(position, strides, strict=True))


def _as_units(buffer: torch.Tensor, unit: int) -> torch.Tensor:
    return buffer[: buffer.numel() // unit * unit].view(DTYPES[unit]) if unit > 1 else buffer
