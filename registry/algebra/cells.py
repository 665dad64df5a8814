"""Contiguous cells of a bound layout, by row and in memory order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from preshuffle.registry.algebra.layout import BoundLayout
from preshuffle.registry.base.words import RowOrder

Half = Literal["gate", "up"]


@dataclass(frozen=True, slots=True)
class Cell:
    """A run of units contiguous both in a row and in memory.

    Attributes:
        expert: the expert.
        row: physical row of the expert.
        k: first unit of K.
        address: of the first unit, in units from the start of the tensor.
        half: gate or up; None in a tensor without them.
        row_in_half: the row counted within its half.
        tile: the row tile within the half.
        pad: whether it holds fill instead of the model's values.
    """

    expert: int
    row: int
    k: int
    address: int
    half: Half | None
    row_in_half: int
    tile: int
    pad: bool

    @property
    def name(self) -> str:
        """Return the row's short name: ``g3`` (gate), ``u3`` (up), ``r3`` (no halves)."""
        return f"{self.half[0] if self.half else 'r'}{self.row_in_half}"


@dataclass(frozen=True, slots=True)
class CellGrid:
    """A bound layout cut into cells.

    Attributes:
        bound: the layout on a shape.
        order: how gate and up rows follow each other before the layout; None in a tensor without them.
        run: units in a cell; divides what ``contiguous_run`` returns.
        live: ``(rows per half, K)`` that hold the model's values; None: all.
        tile_rows: rows of a half in one tile.
    """

    bound: BoundLayout
    order: RowOrder | None
    run: int
    live: tuple[int, int] | None = None
    tile_rows: int = 1

    @property
    def halves(self) -> int:
        """2 for a tensor of gate and up, else 1."""
        return 2 if self.order else 1

    def place(self, row: int) -> tuple[Half | None, int]:
        """Return a physical row's half and its number within that half."""
        if self.order is None:
            return None, row
        if self.order == "GUGU":
            return ("up" if row % 2 else "gate"), row // 2
        index, row_in_half = divmod(row, self.bound.shape[1] // 2)
        return ("up" if index else "gate"), row_in_half

    def first_rows(self, count: int) -> list[int]:
        """Return the physical rows of each half's first rows, gate before up."""
        count = min(count, self.bound.shape[1] // self.halves)
        if self.order == "GUGU":
            return [2 * row + half for half in range(2) for row in range(count)]
        half_rows = self.bound.shape[1] // self.halves
        return [half * half_rows + row for half in range(self.halves) for row in range(count)]

    def columns(self, end: int) -> range:
        """Return the first K units of the cells that begin before ``end``."""
        return range(0, min(end, self.bound.shape[2]), self.run)

    def cell(self, expert: int, row: int, k: int) -> Cell:
        """Return the cell that begins at a position of the logical tensor."""
        half, row_in_half = self.place(row)
        return Cell(
            expert=expert,
            row=row,
            k=k,
            address=self.bound.address(expert, row, k),
            half=half,
            row_in_half=row_in_half,
            tile=row_in_half // self.tile_rows,
            pad=self.live is not None and (row_in_half >= self.live[0] or k >= self.live[1]),
        )

    def in_memory(self, start: int, stop: int) -> Iterator[Cell]:
        """Yield the cells from one address to another, in memory order."""
        permutation = self.bound.permutation
        _, rows, k = self.bound.shape
        for address in range(start, stop, self.run):
            expert, place = divmod(permutation.source(address), rows * k)
            yield self.cell(expert, *divmod(place, k))


def contiguous_run(bound: BoundLayout) -> int:
    """Return how many units of one row stay together in memory."""
    modes = bound.permutation.modes
    length = modes[-1].size if modes and modes[-1].stride == 1 else 1
    return min(length, bound.shape[2])


class Placed(Protocol):
    """Anything with a place in the logical tensor."""

    @property
    def expert(self) -> int:
        """The expert."""

    @property
    def half(self) -> Half | None:
        """Gate or up."""

    @property
    def row(self) -> int:
        """The row."""

    @property
    def k(self) -> int:
        """The first unit of K."""


PlacedT = TypeVar("PlacedT", bound=Placed)


def segments(cells: Sequence[PlacedT]) -> list[list[PlacedT]]:
    """Group cells that are adjacent in memory with one constant step.

    A step counts rows and K.
    """
    groups: list[list[PlacedT]] = []
    for cell in cells:
        last = groups[-1] if groups else []
        if last and (cell.expert, cell.half) == (last[-1].expert, last[-1].half):
            step = (cell.row - last[-1].row, cell.k - last[-1].k)
            if len(last) == 1 or step == (last[1].row - last[0].row, last[1].k - last[0].k):
                last.append(cell)
                continue
        groups.append([cell])
    return groups
