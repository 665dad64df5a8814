"""SVG drawings of a layout's picture: by row, by memory, as strip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from preshuffle.api.pages.formats import number
from preshuffle.api.pages.pictures.layout_picture import CELLS_PER_LINE, Picture
from preshuffle.api.pages.pictures.layout_words import STRETCHES, line_columns, span, stretches
from preshuffle.api.pages.pictures.series import series_text
from preshuffle.api.pages.pictures.svg import cells, svg, text_at, texts
from preshuffle.registry.algebra.cells import Cell

_LABEL: Final = 72
"""Width of the column of addresses."""
_ROW_LABEL: Final = 40
"""Width of the column of row names."""
_CELL: Final = (29, 18)
_ROW: Final = (50, 9)
_HEAD: Final = 20
_GAP: Final = 20
_TILE_GAP: Final = 5
_LETTERS: Final = 5
"""Letters that fit into a cell of memory; longer names are set closer."""
_SHADES: Final = 8


def memory_svg(picture: Picture, ident: str) -> str:
    """Draw memory from its start, 16 cells a line.

    ``ident`` makes ids unique.
    """
    width, height = _CELL
    right = _LABEL + CELLS_PER_LINE * width
    longest = max(len(cell.name) for line in picture.lines for cell in line.cells)
    letters = max(_LETTERS, 1 + longest)
    left = _LABEL + (width - longest * width / letters) / 2  # the longest names are centred, shorter ones begin there
    tops: list[int] = []
    gaps: list[tuple[float, float, str]] = []
    y = _HEAD
    for line in picture.lines:
        if line.skipped:
            gaps.append((_LABEL, y + 13, f"… {number(line.skipped)} bytes not drawn"))
            y += _GAP
        tops.append(y)
        y += height
    gaps.append((_LABEL, y + 13, "…"))
    drawn = list(zip(picture.lines, tops, strict=True))
    addresses = [(_LABEL - 8, top + 12, number(line.address * picture.tensor.unit_bytes)) for line, top in drawn]
    names = [(left, top + 12, "".join(cell.name.ljust(letters) for cell in line.cells)) for line, top in drawn]
    parts = [
        cells([box for line, top in drawn for box in _boxes(picture, line.cells, _LABEL, top, width)], _CELL),
        texts("label end", [(_LABEL - 8, 13, "at byte"), *addresses]),
        texts("names", names, width / letters),
        texts("label", _new_columns(picture, tops, right + 6)),
        texts("gap", gaps),
    ]
    size = (right + 84, y + _GAP)
    lines = series_text(("", line.address // (CELLS_PER_LINE * picture.run), top) for line, top in drawn)
    data = {"grid": f"{_LABEL} {width} {height}", "lines": lines}
    return svg(f"{ident}-memory", size, "Memory order of the first tiles", f"#{ident}-words", parts, data)


def rows_svg(picture: Picture, ident: str) -> str:
    """Draw the same cells where a row-major tensor has them.

    One row is below the other; K goes to the right.
    """
    width, height = _ROW
    columns = picture.rows[0]
    right = _ROW_LABEL + len(columns) * width
    tops: list[int] = []
    gaps: list[tuple[float, float, str]] = []
    y = _HEAD
    before: Cell | None = None
    for first in (row[0] for row in picture.rows):
        if before is not None and before.half != first.half:
            gaps.append((_ROW_LABEL, y + 13, "…"))
            y += _GAP
        elif before is not None and before.tile != first.tile:
            y += _TILE_GAP
        tops.append(y)
        y += height
        before = first
    gaps.append((_ROW_LABEL, y + 13, "…"))
    if columns[-1].k + picture.run < picture.tensor.shape[1]:
        gaps.append((right + 2, 13, "…"))
    drawn = list(zip(picture.rows, tops, strict=True))
    heads = [
        (_ROW_LABEL + index * width + width / 2, 13, span(cell.k, picture.run)) for index, cell in enumerate(columns)
    ]
    names = [(_ROW_LABEL - 6, top + 8, row[0].name) for row, top in drawn if row[0].row_in_half % 4 == 0]
    parts = [
        cells([box for row, top in drawn for box in _boxes(picture, row, _ROW_LABEL, top, width)], _ROW),
        texts("label mid", heads),
        texts("label end", names),
        texts("gap", gaps),
    ]
    description = f"The first rows of one expert, as a row-major tensor has them; columns are {picture.tensor.unit}s."
    lines = series_text((row[0].name[0], row[0].row_in_half, top) for row, top in drawn)
    data = {"grid": f"{_ROW_LABEL} {width} {height}", "lines": lines}
    return svg(f"{ident}-rows", (right + 16, y + _GAP), "The same values by row", description, parts, data)


def strip_svg(picture: Picture, ident: str) -> str:
    """Draw how gate and up share one expert's memory.

    Empty where there are none.
    """
    if picture.alternation is None:
        return ""
    count = min(stretches(picture), STRETCHES)
    width = 720 / count
    parts = [
        f'<rect class="{"u0" if index % 2 else "g0"} solid" x="{index * width:.2f}" y="0" '
        f'width="{width - 0.6:.2f}" height="20"/>'
        for index in range(count)
    ]
    if width > 60:
        middles = [(index * width + width / 2, "up" if index % 2 else "gate") for index in range(count)]
        parts += [text_at(middle, 14, half, "solid-label mid") for middle, half in middles]
    return svg(f"{ident}-strip", (720, 20), "Gate and up in one expert's memory", f"#{ident}-words", parts)


def cell_data(picture: Picture) -> dict[str, str]:
    """Return the data attributes from which a script names cells.

    A cell's address is its row's plus its column's: ``rows`` and ``columns`` are series of addresses.
    """
    tensor = picture.tensor
    return {
        "rows": series_text((cell.name[0], cell.row_in_half, cell.address) for cell in picture.row_starts),
        "columns": series_text(("", cell.k // picture.run, cell.address) for cell in picture.column_starts),
        "live": " ".join(map(str, tensor.live)),
        "unit": f"{tensor.unit} {tensor.unit_bytes} {picture.run}",
    }


def _new_columns(picture: Picture, tops: Sequence[int], left: int) -> Iterator[tuple[float, float, str]]:
    """Yield the part of K of each line where it changes."""
    before = ""
    for line, top in zip(picture.lines, tops, strict=True):
        columns = line_columns(picture, line)
        if columns != before:
            yield left, top + 12, columns
        before = columns


def _boxes(
    picture: Picture, row: Sequence[Cell], left: int, top: int, width: int
) -> Iterator[tuple[str, float, float]]:
    """Yield the class and place of each cell of a line."""
    for index, cell in enumerate(row):
        yield _classes(picture, cell), left + index * width, top


def _classes(picture: Picture, cell: Cell) -> str:
    """Return a cell's CSS classes: half and tile, then place along K."""
    if cell.pad:
        return "pad"
    half = cell.half[0] if cell.half else "n"
    shade = min(cell.k // picture.run * max(1, _SHADES // len(picture.rows[0])), _SHADES - 1)
    return f"{half}{cell.tile % 2} k{shade}"
