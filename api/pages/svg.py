"""A picture as SVG. Colours are the style sheet's, by class: no style stands in the markup."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from preshuffle.api.pages.layout_picture import CELLS_PER_LINE, Cell, Line, Picture

_LABEL: Final = 72
"""Width of the column of addresses, and of row names."""
_CELL: Final = (29, 18)
_ROW: Final = (50, 9)
_HEAD: Final = 20
_GAP: Final = 20
_STRETCHES: Final = 24


def memory_svg(picture: Picture, ident: str) -> str:
    """Draw memory from its start, one line of 16 cells below the other; ``ident`` makes the ids unique."""
    width, height = _CELL
    parts: list[str] = [words_at(_LABEL - 8, 13, "at byte", "label end"), words_at(_LABEL, 13, "", "label")]
    y = _HEAD
    for line in picture.lines:
        if line.skipped:
            parts.append(words_at(_LABEL, y + 13, f"… {number(line.skipped)} bytes not drawn", "gap"))
            y += _GAP
        parts.append(words_at(_LABEL - 8, y + 12, number(line.address * picture.subject.unit_bytes), "label end"))
        for index, cell in enumerate(line.cells):
            parts.append(_cell(picture, cell, _LABEL + index * width, y, width - 1, height - 1, cell.name))
        parts.append(words_at(_LABEL + CELLS_PER_LINE * width + 6, y + 12, _columns_of(picture, line), "label"))
        y += height
    parts.append(words_at(_LABEL, y + 13, "…", "gap"))
    return svg(
        f"{ident}-memory",
        (_LABEL + CELLS_PER_LINE * width + 84, y + _GAP),
        "Memory order of the first tiles",
        memory_words(picture),
        parts,
    )


def rows_svg(picture: Picture, ident: str) -> str:
    """Draw the same cells where a row-major tensor has them: a row below the other, K to the right."""
    width, height = _ROW
    left = 40
    columns = picture.rows[0]
    parts = [
        words_at(left + index * width + width / 2, 13, _span(cell.k, picture.run), "label mid")
        for index, cell in enumerate(columns)
    ]
    y = _HEAD
    before: Cell | None = None
    for row in picture.rows:
        first = row[0]
        if before is not None and before.half != first.half:
            parts.append(words_at(left, y + 13, "…", "gap"))
            y += _GAP
        elif before is not None and before.tile != first.tile:
            y += 5
        if first.row_in_half % 4 == 0:
            parts.append(words_at(left - 6, y + 8, first.name, "label end"))
        for index, cell in enumerate(row):
            parts.append(_cell(picture, cell, left + index * width, y, width - 1, height - 1, ""))
        y += height
        before = first
    more = picture.rows[0][-1].k + picture.run < picture.subject.shape[1]
    if more:
        parts.append(words_at(left + len(columns) * width + 2, 13, "…", "gap"))
    parts.append(words_at(left, y + 13, "…", "gap"))
    return svg(
        f"{ident}-rows",
        (left + len(columns) * width + 16, y + _GAP),
        "The same values by row",
        f"The first rows of one expert, as a row-major tensor has them; columns are {picture.subject.unit}s.",
        parts,
    )


def strip_svg(picture: Picture, ident: str) -> str:
    """Draw how gate and up share one expert's memory; empty where there are none."""
    if picture.alternation is None:
        return ""
    total = stretches(picture)
    shown = min(total, _STRETCHES)
    width = 720 / shown
    parts = [
        f'<rect class="{"u0" if index % 2 else "g0"} solid" x="{index * width:.2f}" y="0" '
        f'width="{width - 0.6:.2f}" height="20"/>'
        for index in range(shown)
    ]
    if width > 60:
        middles = [(index * width + width / 2, "up" if index % 2 else "gate") for index in range(shown)]
        parts += [words_at(middle, 14, half, "solid-label mid") for middle, half in middles]
    return svg(f"{ident}-strip", (720, 20), "Gate and up in one expert's memory", strip_words(picture), parts)


def stretches(picture: Picture) -> int:
    """How often one expert's memory changes between gate and up, plus one."""
    rows, k = picture.subject.shape
    return rows * k * picture.subject.unit_bytes // (picture.alternation or 1)


def strip_words(picture: Picture) -> str:
    """Say in words how gate and up share one expert's memory."""
    if picture.subject.order is None:
        return "There are no gate and up rows in this tensor."
    if picture.alternation is None:
        return "Gate and up do not alternate evenly."
    each = "byte" if picture.alternation == 1 else f"{number(picture.alternation)} bytes"
    row = picture.subject.shape[1] * picture.subject.unit_bytes
    if picture.alternation % row == 0:
        count = picture.alternation // row
        each += f" ({number(count)} {'row' if count == 1 else 'rows'})"
    total = stretches(picture)
    if total == 2:
        return f"Gate and up lie apart: one expert is {each} of gate, then as many of up."
    shown = f"; the first {_STRETCHES} of {number(total)} stretches are drawn" if total > _STRETCHES else ""
    return f"Gate and up alternate every {each}{shown}."


def memory_words(picture: Picture) -> str:
    """Say in words what the first line of memory holds."""
    cells = picture.lines[0].cells
    unit = picture.subject.unit
    piece = f"{picture.run} {unit}s" if picture.run > 1 else f"one {unit}"
    names = ", ".join(cell.name for cell in cells[:4])
    what = f"Each cell is {piece} of a row; a line is {len(cells)} cells. Memory starts with {names}, …"
    return f"{what} (g: gate row, u: up row)." if picture.subject.order else f"{what} (r: row)."


def number(value: int) -> str:
    """Write a number with thin spaces between its thousands."""
    return f"{value:,}".replace(",", "\u202f")


def _cell(picture: Picture, cell: Cell, x: float, y: float, width: float, height: float, label: str) -> str:
    kind = f"{cell.half[0] if cell.half else 'n'}{cell.tile % 2}"
    shade = min(cell.k // picture.run * max(1, 8 // len(picture.rows[0])), 7)
    classes = "pad" if cell.pad else f"{kind} k{shade}"
    rect = (
        f'<rect class="{classes}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" data-at="{cell.address}">'
        f"<title>{escape(_words(picture, cell))}</title></rect>"
    )
    return rect + (words_at(x + width / 2, y + 12, label, "name mid") if label else "")


def _words(picture: Picture, cell: Cell) -> str:
    subject = picture.subject
    row = f"{cell.half} row {cell.row_in_half}" if cell.half else f"row {cell.row_in_half}"
    span = _span(cell.k, picture.run)
    where = number(cell.address * subject.unit_bytes)
    what = "" if subject.unit == "value" else f", {subject.unit}{'s' if picture.run > 1 else ''} {span}"
    return f"expert 0, {row}{what} lies at byte {where}{' (padding)' if cell.pad else ''}"


def _columns_of(picture: Picture, line: Line) -> str:
    """Which part of K a line holds, where that is short to say."""
    if picture.subject.unit == "value":
        return ""
    starts = sorted({cell.k for cell in line.cells})
    if starts == list(range(starts[0], starts[-1] + 1, picture.run)):
        return f"{picture.subject.unit}s {starts[0]}–{starts[-1] + picture.run - 1}"
    return f"{picture.subject.unit}s {', '.join(map(str, starts))}"


def _span(start: int, run: int) -> str:
    return str(start) if run == 1 else f"{start}–{start + run - 1}"


def words_at(x: float, y: float, text: str, classes: str) -> str:
    """Write words; none where there are none."""
    return f'<text class="{classes}" x="{x:g}" y="{y:g}">{escape(text)}</text>' if text else ""


def svg(ident: str, size: tuple[float, float], title: str, description: str, parts: Iterable[str]) -> str:
    """Return the element, with what it is called and what it says for those who cannot see it."""
    width, height = size
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="picture" id="{ident}" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" aria-labelledby="{ident}-title {ident}-desc">'
        f'<title id="{ident}-title">{escape(title)}</title><desc id="{ident}-desc">{escape(description)}</desc>'
        + "".join(parts)
        + "</svg>"
    )
