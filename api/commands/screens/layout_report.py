"""What a layout does to a shape, in numbers: modes, bytes, and where the first runs come from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import prod
from typing import Literal

from preshuffle.registry.algebra.copy_plan import PlainView, plan_copy
from preshuffle.registry.algebra.layout import BoundLayout
from preshuffle.registry.base.errors import LayoutError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.entries import LayoutEntry
from preshuffle.registry.loading import Book

_RUNS = 16


class Run(Frozen):
    """A run of units that lie together in memory and along K in the logical tensor.

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
    """Where one unit lies."""

    expert: int
    row: int
    k: int
    address: int


class Picture(Frozen):
    """The first tile of expert 0: for each row, the number in memory of each of its runs along K.

    Attributes:
        k: where each column's run starts.
        rows: ``(row, numbers)``; every row of the tile, gate rows first.
    """

    k: tuple[int, ...]
    rows: tuple[tuple[int, tuple[int, ...]], ...]


class Plan(Frozen):
    """How plain bytes (GGUU rows) get there.

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
    plan: Plan
    first: tuple[Run, ...]
    picture: Picture


class LayoutReport(Frozen):
    """A layout, and what it does to a shape where one was given."""

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
    bound: Bound | None = None
    address: Address | None = None


def report_on(
    book: Book, entry: LayoutEntry, shape: tuple[int, int, int] | None, position: tuple[int, int, int] | None = None
) -> LayoutReport:
    """Describe a layout.

    Args:
        book: the other layouts, to compare bytes with.
        entry: the layout.
        shape: experts, rows, K in units.
        position: the unit whose address is asked.

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
    )
    if shape is None:
        return report
    bound = layout.bind(*shape)
    where = None
    if position is not None:
        expert, row, k = position
        where = Address(expert=expert, row=row, k=k, address=bound.address(expert, row, k))
    return report.model_copy(update={"bound": _bound(book, entry.id, bound), "address": where})


def _bound(book: Book, name: str, bound: BoundLayout) -> Bound:
    permutation = bound.permutation
    run = _run_length(bound)
    return Bound(
        shape=bound.shape,
        modes=tuple((mode.size, mode.stride) for mode in permutation.modes),
        bytes=prod(bound.shape),
        identity=all(stride == 1 for _, stride in permutation.modes),
        run=run,
        same_bytes_as=tuple(other for other in book.layouts if other != name and _same(book, other, bound)),
        plan=_plan(bound),
        first=tuple(islice(_runs(bound, run), _RUNS)),
        picture=_picture(bound, run),
    )


def _plan(bound: BoundLayout) -> Plan:
    experts, rows, k = bound.shape
    copies = plan_copy(bound, PlainView(experts, 1, rows, k, rows * k, rows * k, k)).copies
    unit = min(box.unit for box in copies)
    return Plan(boxes=len(copies), unit=unit, moved=2 * prod(bound.shape), band=max(box.band for box in copies))


def _run_length(bound: BoundLayout) -> int:
    modes = bound.permutation.modes
    length = modes[-1].size if modes and modes[-1].stride == 1 else 1
    return min(length, bound.shape[2])


def _same(book: Book, other: str, bound: BoundLayout) -> bool:
    entry = book.layouts[other]
    if "any" not in (entry.unit, bound.layout.unit) and entry.unit != bound.layout.unit:
        return False
    try:
        return entry.layout().bind(*bound.shape).permutation == bound.permutation
    except LayoutError:
        return False


def _runs(bound: BoundLayout, run: int) -> Iterator[Run]:
    half_rows = bound.shape[1] // 2
    for address in range(0, prod(bound.shape), run):
        expert, row, k = bound.source(address)
        half: Literal["gate", "up"] | None = None
        if bound.layout.pattern.splits_gate_up:
            half = "gate" if row < half_rows else "up"
        yield Run(address=address, expert=expert, row=row, half=half, k=k, length=run)


def _picture(bound: BoundLayout, run: int) -> Picture:
    _, rows, k = bound.shape
    layout = bound.layout
    tile = layout.row_multiple
    shown = list(range(min(tile, rows)))
    if layout.pattern.splits_gate_up:
        shown += [rows // 2 + row for row in shown]
    columns = range(0, min(k, max(2 * layout.k_multiple, 4 * run)), run)
    table = tuple((row, tuple(bound.address(0, row, at) // run for at in columns)) for row in shown)
    return Picture(k=tuple(columns), rows=table)
