"""Terminal view of a layout and its bytes for a shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from preshuffle.api.commands.screens.layout_report import Bound, LayoutReport, Run, TileNumbers
from preshuffle.api.commands.screens.screen import Screen, shape_text
from preshuffle.api.commands.screens.table import Cell, Column
from preshuffle.registry.algebra.cells import segments
from preshuffle.registry.base.ranges import range_text
from preshuffle.registry.kernels import BackendReader, LayoutReader
from preshuffle.registry.loading import NOT_SAID

_UNITS = {"byte": "bytes", "group": "groups", "any": "elements"}


def show_report(screen: Screen, report: LayoutReport) -> None:
    """Show a layout."""
    screen.text(report.title, indent=0, hanging=f"{report.id}  ", style="bold")
    unit = _UNITS[report.unit]
    rows = f"rows {report.row_multiple}{' of each half' if report.splits_gate_up else ''}"
    pairs = [
        ("pattern", report.pattern),
        ("multiples", f"{rows}, K {report.k_multiple} {unit}"),
        ("gate_mode", report.gate_mode),
    ]
    if report.aliases:
        pairs.append(("aliases", ", ".join(report.aliases)))
    pairs += [("see" if number == 0 else "", place) for number, place in enumerate(report.evidence)]
    screen.pairs(pairs)
    _readers(screen, report)
    if report.bound is not None:
        _bound(screen, report, report.bound)
    if report.address is not None:
        at = report.address
        screen.heading("address")
        screen.text(f"expert {at.expert}, row {at.row}, K {at.k} lies at {at.address} ({at.address:#x})")


def _readers(screen: Screen, report: LayoutReport) -> None:
    screen.heading("kernel families", "that read it" if report.readers else "none of the book reads it")
    rows = [
        (Cell(reader.family, "name"), reader.stage, ", ".join(reader.roles), known_text(reader))
        for reader in report.readers
    ]
    if rows:
        columns = [Column("family"), Column("stage"), Column("tensors", wraps=True), Column("known", wraps=True)]
        screen.table(columns, rows)
    if report.backends:
        screen.heading("backends", "whose own kernels read it")
        columns = [Column("backend"), Column("tensors", wraps=True), Column("known", wraps=True)]
        screen.table(columns, [(Cell(b.backend, "name"), ", ".join(b.roles), known_text(b)) for b in report.backends])


def known_text(reader: LayoutReader | BackendReader) -> str:
    """Return a reader's strongest evidence, and how much more there is."""
    if not reader.evidence:
        return NOT_SAID
    first, *others = reader.evidence
    counts = Counter(entry.kind for entry in others)
    return first.says + "".join(f"; and {count} more ({kind})" for kind, count in counts.items())


def _bound(screen: Screen, report: LayoutReport, bound: Bound) -> None:
    unit = _UNITS[report.unit]
    screen.heading(f"on {shape_text(bound.shape)}", f"experts × rows × K in {unit}")
    runs = bound.bytes // bound.run
    each = f"{bound.run} {unit if bound.run > 1 else unit[:-1]}"
    moved = "nothing moves" if bound.identity else f"every run moves by itself: {runs:,} runs of {each}"
    modes = "  ".join(f"{size}:{stride}" for size, stride in bound.modes)
    pairs = [
        ("modes", f"{modes}  (size:stride, outermost first)"),
        ("bytes", f"{bound.bytes:,} ({_binary(bound.bytes)}); {moved}"),
        ("plan", _plan_text(bound)),
    ]
    if bound.same_bytes_as:
        pairs.append(("same bytes", ", ".join(bound.same_bytes_as)))
    screen.pairs(pairs)
    screen.heading("memory order", "the first runs")
    rows = [_segment_row(segment) for segment in segments(bound.first)]
    columns = [Column("address"), Column("runs", right=True), Column("expert"), Column("rows"), Column("K", wraps=True)]
    screen.table(columns, rows)
    show_picture(screen, bound.run, bound.picture, bound.shape[1] // 2 if report.splits_gate_up else None)


def _plan_text(bound: Bound) -> str:
    plan = bound.plan
    boxes = "1 strided copy" if plan.boxes == 1 else f"{plan.boxes} strided copies"
    text = f"{boxes} in units of {plan.unit} byte{'s' if plan.unit > 1 else ''}, {plan.moved:,} bytes read and written"
    expert = bound.bytes // bound.shape[0]
    scratch = f"through scratch of at least {expert:,} bytes (one expert)"
    if plan.band < expert:
        return f"{text}; in place on a GPU in one pass, in bands of {plan.band:,} bytes, on a CPU {scratch}"
    return f"{text}; in place {scratch}, on a GPU without it where bands change places as wholes"


def _segment_row(segment: Sequence[Run]) -> tuple[str | Cell, ...]:
    first, last = segment[0], segment[-1]
    rows = [run.row for run in segment]
    end = last.k + last.length - 1
    starts = f"{first.k}" if end == first.k else f"{first.k}–{end}"
    return (
        Cell(f"{first.address:#06x}–{last.address + last.length - 1:#06x}", "dim"),
        str(len(segment)),
        str(first.expert),
        f"{first.half or ''} {_span(rows)}".strip(),
        starts,
    )


def _span(values: Sequence[int]) -> str:
    first, last = values[0], values[-1]
    if first == last or values[1] - first == 1:
        return range_text(first, last, "–")
    return ", ".join(map(str, values)) if len(values) < 5 else f"{first}…{last}"


def show_picture(screen: Screen, run: int, picture: TileNumbers, first_up_row: int | None) -> None:
    """Show where the first tile's runs lie in memory.

    Args:
        screen: to show it on.
        run: units of a run.
        picture: numbers of the runs.
        first_up_row: where the layout tells gate from up.
    """
    unit = f"runs of {run}" if run > 1 else "places"
    screen.heading("picture", f"the first rows of expert 0; each number counts {unit} in memory")
    width = max(len(str(number)) for _, numbers in picture.rows for number in numbers)
    width = max(width, max(len(str(k)) for k in picture.k))
    fitting = max(1, (screen.width - 16) // (width + 2))
    columns = [Column("row \\ K"), *(Column(str(k), right=True) for k in picture.k[:fitting])]
    table: list[tuple[str | Cell, ...]] = []
    hidden = False
    for index, (row, numbers) in enumerate(picture.rows):
        if _continues_step(picture, index):
            hidden = True
            continue
        if hidden:
            table.append((Cell("⋮", "dim"), *(Cell("⋮", "dim") for _ in numbers[:fitting])))
            hidden = False
        style = "warn" if first_up_row is not None and row >= first_up_row else "name"
        side = "" if first_up_row is None else "up " if style == "warn" else "gate "
        table.append((Cell(f"{side}{row}", style), *(Cell(str(number), style) for number in numbers[:fitting])))
    screen.table(columns, table)


def _continues_step(numbers: TileNumbers, index: int) -> bool:
    """Return whether a row can be omitted between its neighbours.

    It can where it continues the step that the rows around it make.
    """
    if index < 2 or index + 1 >= len(numbers.rows):
        return False
    steps = {
        (numbers.rows[at][0] - numbers.rows[at - 1][0], numbers.rows[at][1][0] - numbers.rows[at - 1][1][0])
        for at in (index - 1, index, index + 1)
    }
    return len(steps) == 1


def _binary(count: int) -> str:
    size, names = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(names) > 1:
        size, names = size / 1024, names[1:]
    return f"{size:.4g} {names[0]}"
