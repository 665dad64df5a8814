"""What a picture of a layout shows: which piece of which row lies where in memory, for the first tiles of one expert.

Everything is taken from the registry's own ``BoundLayout``: a cell's place in memory is ``address``, a line's content
is ``source``. Nothing here knows any layout by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Final, Literal

from preshuffle.registry.algebra.layout import BoundLayout, Layout
from preshuffle.registry.base.words import Role, RowOrder
from preshuffle.registry.values.decision import TensorDecision

Half = Literal["gate", "up"]
CELLS_PER_LINE: Final = 16
_LONGEST_RUN: Final = 16
_MAX_LINES: Final = 64


@dataclass(frozen=True, slots=True)
class Cell:
    """A run of units that follow each other both in a row and in memory.

    Attributes:
        row: physical row of the expert.
        k: first unit of K.
        address: of the first unit, in units from the expert's start.
        half: gate or up; None in a tensor without them.
        row_in_half: the row counted within its half.
        tile: the row tile within the half.
        pad: whether it holds fill instead of the model's values.
    """

    row: int
    k: int
    address: int
    half: Half | None
    row_in_half: int
    tile: int
    pad: bool

    @property
    def name(self) -> str:
        """The row, short: ``g3`` is gate row 3, ``u3`` up row 3, ``r3`` row 3 of a tensor without halves."""
        return f"{self.half[0] if self.half else 'r'}{self.row_in_half}"


@dataclass(frozen=True, slots=True)
class Line:
    """Cells that follow each other in memory; ``skipped`` bytes before them are not drawn."""

    address: int
    cells: tuple[Cell, ...]
    skipped: int


@dataclass(frozen=True, slots=True)
class Subject:
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
    def of(role: Role, layout: Layout, tensor: TensorDecision) -> Subject | None:
        """Return what to draw of a decided tensor in a layout; None where it has no rows (a scalar per expert)."""
        if len(tensor.physical_shape) < 2:
            return None
        halves = 2 if tensor.order is not None else 1
        if len(tensor.physical_shape) == 2 and len(tensor.logical_shape) == 3:  # flat over the experts
            experts, logical, groups = tensor.logical_shape
            total, k = tensor.physical_shape
            rows = logical + halves * tensor.pad.rows
            if total == experts * rows:
                return Subject(layout, (rows, k), (logical // halves, groups), tensor.order, "group", 1)
            return Subject(layout, (total, k), (experts * rows, groups), None, "group", 1)
        rows, k = (*tensor.physical_shape[1:], 1)[:2]
        live_rows, live_k = (*tensor.logical_shape[1:], 1)[:2]
        bits = tensor.laid_bits
        if role.endswith("_weight"):
            k, live_k = k * bits // 8, -(-live_k * bits // 8)
            return Subject(layout, (rows, k), (live_rows // halves, live_k), tensor.order, "byte", 1)
        unit: Literal["group", "value"] = "group" if role.endswith("_scale") else "value"
        live = (live_rows // halves, live_k)
        return Subject(layout, (rows, k), live, tensor.order, unit, max(bits // 8, 1))

    @property
    def halves(self) -> int:
        """2 for a tensor of gate and up, else 1."""
        return 2 if self.order else 1

    def place(self, row: int) -> tuple[Half | None, int]:
        """Return the half of a physical row, and the row's number within it."""
        if self.order is None:
            return None, row
        if self.order == "GUGU":
            return ("up" if row % 2 else "gate"), row // 2
        index, row_in_half = divmod(row, self.shape[0] // 2)
        return ("up" if index else "gate"), row_in_half

    def row(self, half: int, row_in_half: int) -> int:
        """Return the physical row of a row of the first (0) or second (1) half."""
        if self.order == "GUGU":
            return row_in_half * 2 + half
        return half * (self.shape[0] // self.halves) + row_in_half

    def bind(self) -> BoundLayout:
        """Bind the layout to one expert.

        Raises:
            LayoutError: it does not fit.
        """
        return self.layout.bind(1, *self.shape)


@dataclass(frozen=True, slots=True)
class Picture:
    """A tensor's first tiles, drawn twice: by rows and by memory.

    Attributes:
        subject: what is drawn.
        run: units in a cell.
        rows: the same cells by row; all rows of a half together, K from left to right.
        lines: memory from its start; whatever lies in a drawn line is drawn.
        alternation: bytes of memory after which gate and up change; None where there are none.
    """

    subject: Subject
    run: int
    rows: tuple[tuple[Cell, ...], ...]
    lines: tuple[Line, ...]
    alternation: int | None


def draw(subject: Subject) -> Picture:
    """Return the picture of a tensor.

    Raises:
        LayoutError: the layout does not fit the shape.
    """
    bound = subject.bind()
    run = _run(bound)
    columns = range(0, min(_columns(subject, run) * run, subject.shape[1]), run)
    rows = tuple(tuple(_cell(subject, bound, row, k) for k in columns) for row in _rows(subject))
    width = CELLS_PER_LINE * run
    starts = sorted({cell.address // width * width for row in rows for cell in row})[:_MAX_LINES]
    lines: list[Line] = []
    for start in starts:
        reached = lines[-1].address + width if lines else 0
        end = min(start + width, subject.shape[0] * subject.shape[1])
        cells = tuple(_cell(subject, bound, *bound.source(address)[1:]) for address in range(start, end, run))
        lines.append(Line(start, cells, (start - reached) * subject.unit_bytes))
    return Picture(subject, run, rows, tuple(lines), _alternation(subject, bound))


def _run(bound: BoundLayout) -> int:
    """Units that stay together: the innermost axis of memory where it runs along K."""
    last = bound.atoms[-1]
    if last.dimension != "k" or last.step != 1:
        return 1
    return last.size if last.size <= _LONGEST_RUN else gcd(last.size, _LONGEST_RUN)


def _columns(subject: Subject, run: int) -> int:
    return max(4, subject.layout.pattern.k_tile // run)


def _tile(subject: Subject) -> int:
    """Rows of a half that one tile takes; a few where the layout has no tiles."""
    tile = subject.layout.row_multiple
    if tile > 1:
        return tile
    return CELLS_PER_LINE if subject.shape[1] == 1 else 4


def _rows(subject: Subject) -> list[int]:
    """Rows to draw: of each half the first tiles, about 32 rows."""
    tile = _tile(subject)
    count = min(tile * (2 if 1 < tile <= 16 else 1), subject.shape[0] // subject.halves)
    return [subject.row(half, row) for half in range(subject.halves) for row in range(count)]


def _cell(subject: Subject, bound: BoundLayout, row: int, k: int) -> Cell:
    half, row_in_half = subject.place(row)
    live_rows, live_k = subject.live
    return Cell(
        row=row,
        k=k,
        address=bound.address(0, row, k),
        half=half,
        row_in_half=row_in_half,
        tile=row_in_half // _tile(subject),
        pad=row_in_half >= live_rows or k >= live_k,
    )


def _alternation(subject: Subject, bound: BoundLayout) -> int | None:
    """Bytes until memory goes from gate to up for the first time: all that lies inside the axis that picks the half.

    None where no single axis picks it: then gate and up do not alternate evenly.
    """
    if subject.order is None:
        return None
    step = 1 if subject.order == "GUGU" else subject.shape[0] // 2
    inside = 1
    for atom in reversed(bound.atoms):
        if atom.dimension == "rows" and atom.step <= step < atom.step * atom.size:
            whole = step % atom.step == 0 and (subject.order == "GGUU" or atom.size % 2 == 0)
            return inside * (step // atom.step) * subject.unit_bytes if whole else None
        inside *= atom.size
    return None
