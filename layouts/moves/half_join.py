"""In-place moves that interleave two halves byte by byte.

Gate and up of a scale, which end in the same words.

Going through the bands in order, a band that is written never covers a piece of the second half that is not yet read.
Of the first half it does. So each program copies the first half of its block into scratch, much of which stays in the
cache, and then takes band by band, from scratch and from the second half, into its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

import torch

from preshuffle.layouts.moves.axes import WORD, Axis, next_power_of_two, pop_word_axes
from preshuffle.layouts.moves.kernel_names import kernel_named
from preshuffle.layouts.moves.move import Move
from preshuffle.layouts.tensors import KernelLaunch

_TILE: Final = 128
_MOST: Final = 512
_WARPS: Final = 16 if torch.version.hip else 32
"""As many as both have room for: 1024 threads."""


@dataclass(frozen=True, slots=True)
class HalfJoin:
    """Launch parameters of an in-place move that interleaves two halves.

    Everything counts in words of four bytes.

    Attributes:
        blocks: how many blocks there are, one behind the other.
        half: words of one half.
        bands: pieces that each half consists of.
        tiles: of one band; then the source's step from tile to tile, and from row to row, and the word beside it.
        rows: of one tile.
        step: bands that are taken at once.
        offset: where the first block begins.
    """

    blocks: int
    half: int
    bands: int
    tiles: int
    source_tile: int
    source_row: int
    beside: int
    rows: int
    step: int
    offset: int

    def scratch_for(self, device: torch.device, scratch_bytes: int) -> int:
        """Return the scratch bytes of the launch.

        Half a block for each program, as many programs as the chip runs at once; 0 where none fits.
        """
        units = torch.cuda.get_device_properties(device).multi_processor_count
        return min(self.blocks, units, scratch_bytes // (self.half * WORD)) * self.half * WORD

    @property
    def arguments(self) -> tuple[int, ...]:
        """Runtime arguments of the kernel behind its buffers."""
        counts = (self.blocks, self.half, self.bands, self.tiles)
        return (*counts, self.source_tile, self.source_row, self.beside, self.step)

    @property
    def constants(self) -> dict[str, int]:
        """Compile-time constants of the kernel."""
        return {"A": next_power_of_two(self.step * self.tiles), "B": self.rows}

    def start(self, buffer: torch.Tensor, scratch: torch.Tensor) -> None:
        """Permute a flat byte buffer on the current stream.

        Does not wait; ``scratch`` has the size that ``scratch_for`` returned.
        """
        _launch(self, scratch.numel() // (self.half * WORD)).start((buffer, scratch))


# Process-wide: a pure function of frozen values that every layer repeats.
@lru_cache(maxsize=1024)
def _launch(join: HalfJoin, programs: int) -> KernelLaunch:
    buffers = (WORD, join.offset), (WORD, 0)
    kernel = partial(kernel_named, "join_halves")
    return KernelLaunch(kernel, (programs,), buffers, join.arguments, join.constants, _WARPS)


# Process-wide: a pure function of frozen values that every layer repeats.
@lru_cache(maxsize=1024)
def plan_half_join(move: Move) -> HalfJoin | None:
    """Recognise a move that interleaves two halves.

    None for any other move.
    """
    axes: list[Axis] = list(zip(move.sizes, move.source, move.target, strict=True))
    if move.unit != 1 or move.source_offset != move.target_offset or move.source_offset % WORD:
        return None
    parted, joined = pop_word_axes(axes, source=True), pop_word_axes(axes, source=False)
    if parted is None or joined is None or not 3 <= len(axes) <= 4:
        return None
    *outer, band, tile, row = sorted(axes, key=lambda axis: axis[2], reverse=True)
    half, beside = joined
    rows, tile_bytes = row[0], 4 * WORD * row[0]
    dense = row[2] == WORD and parted == (WORD * rows, 2 * WORD * rows) and tile[2] == tile_bytes
    in_order = band[2] == tile[0] * tile_bytes == 2 * band[1] and band[0] * band[1] == half
    blocks = outer[0] if outer else (1, 2 * half, 2 * half)
    steps = (half, beside, tile[1], row[1])
    if not (dense and in_order and blocks[1:] == (2 * half, 2 * half)) or any(number % WORD for number in steps):
        return None
    if next_power_of_two(rows) != rows or next_power_of_two(tile[0]) > _MOST:
        return None
    return HalfJoin(
        blocks=blocks[0],
        half=half // WORD,
        bands=band[0],
        tiles=tile[0],
        source_tile=tile[1] // WORD,
        source_row=row[1] // WORD,
        beside=beside // WORD,
        rows=rows,
        step=min(band[0], max(1, _TILE // tile[0])),
        offset=move.source_offset // WORD,
    )
