"""Report on a layout, and on its bytes for a shape."""

from __future__ import annotations

from itertools import islice
from math import prod
from typing import Literal

from preshuffle.registry.algebra.cells import CellGrid, contiguous_run
from preshuffle.registry.algebra.copy_plan import PlainView, plan_copy
from preshuffle.registry.algebra.layout import BoundLayout
from preshuffle.registry.base.errors import LayoutError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.entries import LayoutEntry
from preshuffle.registry.kernels import BackendReader, LayoutReader
from preshuffle.registry.lint import known_backends, known_readers
from preshuffle.registry.loading import Book

_RUNS = 16


class Run(Frozen):
    """A run of units contiguous in memory and along K.

    Attributes:
        address: of its first unit, from the start of the tensor.
        half: which half of the rows it is from, where the layout tells gate from up.
        length: units.
    """

    address: int
    expert: int
    row: int
    half: Literal["gate", "up"] | None
    k: int
    length: int


class Address(Frozen):
    """Address of one unit."""

    expert: int
    row: int
    k: int
    address: int


class TileNumbers(Frozen):
    """Places in memory of the first tile's runs.

    Places are counted in runs, for each row of the first tile of expert 0.

    Attributes:
        k: where each column's run starts.
        rows: ``(row, numbers)``; every row of the tile, gate rows first.
    """

    k: tuple[int, ...]
    rows: tuple[tuple[int, tuple[int, ...]], ...]


class CopySummary(Frozen):
    """Copies that bring plain bytes (GGUU rows) into the layout.

    Attributes:
        boxes: strided copies.
        unit: bytes that are moved at once.
        moved: bytes read and written.
        band: bytes of the smallest piece of memory that is permuted within itself; less than an expert's means that the
            tensor is laid out in place, in one pass, without scratch.
    """

    boxes: int
    unit: int
    moved: int
    band: int


class Bound(Frozen):
    """A layout bound to a shape.

    Attributes:
        modes: ``(size, stride)`` outermost first, in memory order, merged: equal modes are equal bytes.
        bytes: of the tensor; each is read once and written once, unless ``identity``.
        run: units that stay together (along one row).
        same_bytes_as: other layouts that give the same bytes on this shape.
        first: the first runs in memory order.
    """

    shape: tuple[int, int, int]
    modes: tuple[tuple[int, int], ...]
    bytes: int
    identity: bool
    run: int
    same_bytes_as: tuple[str, ...]
    plan: CopySummary
    first: tuple[Run, ...]
    picture: TileNumbers


class LayoutReport(Frozen):
    """Report on a layout, with its kernel families and, optionally, a shape.

    Attributes:
        readers: kernel families of the book that read it.
        backends: backends of the book whose own kernels read it.
    """

    id: str
    title: str
    pattern: str
    unit: Literal["byte", "group", "any"]
    row_multiple: int
    k_multiple: int
    splits_gate_up: bool
    gate_mode: Literal["separated", "interleave"]
    aliases: tuple[str, ...]
    evidence: tuple[str, ...]
    readers: tuple[LayoutReader, ...]
    backends: tuple[BackendReader, ...] = ()
    bound: Bound | None = None
    address: Address | None = None


def report_on(
    book: Book, entry: LayoutEntry, shape: tuple[int, int, int] | None, position: tuple[int, int, int] | None = None
) -> LayoutReport:
    """Describe a layout.

    Args:
        book: the other layouts, to compare bytes with, and the kernel families.
        entry: the layout.
        shape: experts, rows, K in units.
        position: the unit whose address is wanted.

    Raises:
        LayoutError: the shape does not divide, or the position is outside it.
    """
    layout = entry.layout()
    report = LayoutReport(
        id=entry.id,
        title=entry.title,
        pattern=entry.pattern,
        unit=entry.unit,
        row_multiple=layout.row_multiple,
        k_multiple=layout.k_multiple,
        splits_gate_up=layout.pattern.splits_gate_up,
        gate_mode=layout.gate_mode,
        aliases=entry.aliases,
        evidence=entry.evidence,
        readers=known_readers(book, (entry.id, *entry.aliases)),
        backends=known_backends(book, (entry.id, *entry.aliases)),
    )
    if shape is None:
        return report
    bound = layout.bind(*shape)
    where = None
    if position is not None:
        expert, row, k = position
        where = Address(expert=expert, row=row, k=k, address=bound.address(expert, row, k))
    return report.model_copy(update={"bound": _bound(book, entry.id, bound), "address": where})


def picture_of(bound: BoundLayout) -> tuple[int, TileNumbers]:
    """Return a run's units, and places of the first tile's runs."""
    grid = _grid(bound)
    return grid.run, _tile_numbers(grid)


def _grid(bound: BoundLayout) -> CellGrid:
    splits = bound.layout.pattern.splits_gate_up
    return CellGrid(bound, "GGUU" if splits else None, contiguous_run(bound), tile_rows=bound.layout.row_multiple)


def _bound(book: Book, name: str, bound: BoundLayout) -> Bound:
    modes = bound.permutation.modes
    grid = _grid(bound)
    return Bound(
        shape=bound.shape,
        modes=tuple((mode.size, mode.stride) for mode in modes),
        bytes=prod(bound.shape),
        identity=all(mode.stride == 1 for mode in modes),
        run=grid.run,
        same_bytes_as=tuple(other for other in book.layouts if other != name and _same_bytes(book, other, bound)),
        plan=_copies(bound),
        first=_first_runs(grid),
        picture=_tile_numbers(grid),
    )


def _copies(bound: BoundLayout) -> CopySummary:
    experts, rows, k = bound.shape
    copies = plan_copy(bound, PlainView(experts, 1, rows, k, rows * k, rows * k, k)).copies
    unit = min(box.unit for box in copies)
    return CopySummary(boxes=len(copies), unit=unit, moved=2 * prod(bound.shape), band=max(box.band for box in copies))


def _same_bytes(book: Book, other: str, bound: BoundLayout) -> bool:
    entry = book.layouts[other]
    if "any" not in (entry.unit, bound.layout.unit) and entry.unit != bound.layout.unit:
        return False
    try:
        return entry.layout().bind(*bound.shape).permutation == bound.permutation
    except LayoutError:
        return False


def _first_runs(grid: CellGrid) -> tuple[Run, ...]:
    cells = islice(grid.in_memory(0, prod(grid.bound.shape)), _RUNS)
    return tuple(
        Run(address=cell.address, expert=cell.expert, row=cell.row, half=cell.half, k=cell.k, length=grid.run)
        for cell in cells
    )


def _tile_numbers(grid: CellGrid) -> TileNumbers:
    columns = grid.columns(max(2 * grid.bound.layout.k_multiple, 4 * grid.run))
    rows = grid.first_rows(grid.tile_rows)
    table = tuple((row, tuple(grid.bound.address(0, row, k) // grid.run for k in columns)) for row in rows)
    return TileNumbers(k=tuple(columns), rows=table)
