"""Running moves with torch's own strided copies: any device, all cores of a CPU."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Final

import torch

from preshuffle.layouts.move import Move

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
    """Copy between flat byte buffers that do not overlap.

    torch's innermost loop runs along the target's smallest stride. Where that axis is short (two rows of a scale tile,
    say), it is unrolled into copies of their own, so that the loop that remains is long: eight times faster for scales.
    """
    wide_source, wide_target = _wide(source, move.unit), _wide(target, move.unit)
    inner = len(move.sizes)
    while inner > 1 and move.sizes[inner - 1] < _LONG_LOOP and prod(move.sizes[inner - 1 :]) <= _MOST_COPIES:
        inner -= 1
    if inner and move.sizes[inner - 1] < _LONG_LOOP:
        inner = len(move.sizes)
    for position in product(*(range(size) for size in move.sizes[inner:])):
        shift = [sum(p * s for p, s in zip(position, side[inner:], strict=True)) for side in (move.source, move.target)]
        read = _view(wide_source, move.sizes[:inner], move.source[:inner], move.source_offset + shift[0])
        write = _view(wide_target, move.sizes[:inner], move.target[:inner], move.target_offset + shift[1])
        write.copy_(read)


def _wide(buffer: torch.Tensor, unit: int) -> torch.Tensor:
    return buffer[: buffer.numel() // unit * unit].view(DTYPES[unit]) if unit > 1 else buffer


def _view(wide: torch.Tensor, sizes: tuple[int, ...], strides: tuple[int, ...], offset: int) -> torch.Tensor:
    return wide.as_strided(sizes, strides, wide.storage_offset() + offset)
