"""Picture of a layout: one expert's first tiles, by row and memory.

Everything is taken from the registry's own ``BoundLayout``: a cell's place in memory is ``address``, a line's content
is ``source``. Nothing here knows any layout by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Final, Literal

from preshuffle.registry.algebra.cells import Cell, CellGrid, contiguous_run
from preshuffle.registry.algebra.layout import Layout
from preshuffle.registry.base.words import Role, RowOrder
from preshuffle.registry.values.decision import TensorDecision

CELLS_PER_LINE: Final = 16
_LONGEST_RUN: Final = 16
_MAX_LINES: Final = 64


@dataclass(frozen=True, slots=True)
class Line:
    """Cells that follow each other in memory.

    ``skipped`` bytes before them are not drawn.
    """

    address: int
    cells: tuple[Cell, ...]
    skipped: int


@dataclass(frozen=True, slots=True)
class DrawnTensor:
    """A tensor to draw.

    Attributes:
        layout: its layout.
        shape: one expert's physical ``(rows, K)``, K in units.
        live: of these, ``(rows per half, K)`` that hold the model's values.
        order: how gate and up rows follow each other before the layout; None in a tensor without them.
        unit: what a unit is: ``byte``, ``group`` (one scale) or ``value`` (of a bias).
        unit_bytes: bytes of a unit.
    """

    layout: Layout
    shape: tuple[int, int]
    live: tuple[int, int]
    order: RowOrder | None
    unit: Literal["byte", "group", "value"]
    unit_bytes: int

    @staticmethod
    def of(role: Role, layout: Layout, tensor: TensorDecision) -> DrawnTensor | None:
        """Return what to draw of a decided tensor in a layout.

        None where it has no rows (a scalar per expert).
        """
        if len(tensor.physical_shape) < 2:
            return None
        halves = 2 if tensor.order is not None else 1
        if len(tensor.physical_shape) == 2 and len(tensor.logical_shape) == 3:  # flat over the experts
            experts, logical, groups = tensor.logical_shape
            total, k = tensor.physical_shape
            rows = logical + halves * tensor.pad.rows
            if total == experts * rows:
                return DrawnTensor(layout, (rows, k), (logical // halves, groups), tensor.order, "group", 1)
            return DrawnTensor(layout, (total, k), (experts * rows, groups), None, "group", 1)
        rows, k = (*tensor.physical_shape[1:], 1)[:2]
        live_rows, live_k = (*tensor.logical_shape[1:], 1)[:2]
        bits = tensor.laid_bits
        if role.endswith("_weight"):
            k, live_k = k * bits // 8, -(-live_k * bits // 8)
            return DrawnTensor(layout, (rows, k), (live_rows // halves, live_k), tensor.order, "byte", 1)
        unit: Literal["group", "value"] = "group" if role.endswith("_scale") else "value"
        live = (live_rows // halves, live_k)
        return DrawnTensor(layout, (rows, k), live, tensor.order, unit, max(bits // 8, 1))

    @property
    def tile_rows(self) -> int:
        """Rows of a half in one tile; without tiles, a few."""
        if self.layout.row_multiple > 1:
            return self.layout.row_multiple
        return CELLS_PER_LINE if self.shape[1] == 1 else 4

    def grid(self) -> CellGrid:
        """Bind the layout to one expert and cut it into cells.

        A cell has 16 units at most.

        Raises:
            LayoutError: it does not fit.
        """
        bound = self.layout.bind(1, *self.shape)
        run = contiguous_run(bound)
        if run > _LONGEST_RUN:
            run = gcd(run, _LONGEST_RUN)
        return CellGrid(bound, self.order, run, self.live, self.tile_rows)


@dataclass(frozen=True, slots=True)
class Picture:
    """A tensor's first tiles, drawn twice: by row and by memory.

    Attributes:
        tensor: what is drawn.
        run: units in a cell.
        rows: the same cells by row; all rows of a half together, K from left to right.
        lines: memory from its start; whatever lies in a drawn line is drawn.
        row_starts: the first cell of every row that is drawn in either way, gate before up.
        column_starts: the cells of row 0 for every piece of K that is drawn in either way. An address is a sum of a
            part that depends on the row and one that depends on K, so that these two say where every cell lies.
        alternation: bytes of memory after which gate and up change; None where there are none.
    """

    tensor: DrawnTensor
    run: int
    rows: tuple[tuple[Cell, ...], ...]
    lines: tuple[Line, ...]
    row_starts: tuple[Cell, ...]
    column_starts: tuple[Cell, ...]
    alternation: int | None


def draw(tensor: DrawnTensor) -> Picture:
    """Choose the cells that the picture of a tensor shows.

    Raises:
        LayoutError: the layout does not fit the shape.
    """
    grid = tensor.grid()
    columns = grid.columns(max(4 * grid.run, tensor.layout.pattern.k_tile // grid.run * grid.run))
    rows = tuple(tuple(grid.cell(0, row, k) for k in columns) for row in grid.first_rows(_row_count(tensor)))
    width = CELLS_PER_LINE * grid.run
    starts = sorted({cell.address // width * width for row in rows for cell in row})[:_MAX_LINES]
    lines: list[Line] = []
    for start in starts:
        reached = lines[-1].address + width if lines else 0
        end = min(start + width, tensor.shape[0] * tensor.shape[1])
        lines.append(Line(start, tuple(grid.in_memory(start, end)), (start - reached) * tensor.unit_bytes))
    drawn = [cell for row in rows for cell in row] + [cell for line in lines for cell in line.cells]
    return Picture(
        tensor=tensor,
        run=grid.run,
        rows=rows,
        lines=tuple(lines),
        row_starts=tuple(grid.cell(0, row, 0) for row in sorted({cell.row for cell in drawn}, key=grid.place)),
        column_starts=tuple(grid.cell(0, 0, k) for k in sorted({cell.k for cell in drawn})),
        alternation=_alternation(tensor, grid),
    )


def _row_count(tensor: DrawnTensor) -> int:
    """Return how many rows of each half to draw, about 32."""
    tile = tensor.tile_rows
    return tile * (2 if 1 < tile <= 16 else 1)


def _alternation(tensor: DrawnTensor, grid: CellGrid) -> int | None:
    """Return the bytes until memory first goes from gate to up.

    That is all that lies inside the axis that picks the half.

    None where no single axis picks it: then gate and up do not alternate evenly.
    """
    if tensor.order is None:
        return None
    step = 1 if tensor.order == "GUGU" else tensor.shape[0] // 2
    inside = 1
    for atom in reversed(grid.bound.atoms):
        if atom.dimension == "rows" and atom.step <= step < atom.step * atom.size:
            even = step % atom.step == 0 and (tensor.order == "GGUU" or atom.size % 2 == 0)
            return inside * (step // atom.step) * tensor.unit_bytes if even else None
        inside *= atom.size
    return None
