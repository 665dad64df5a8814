"""Words that describe a layout's picture for those who cannot see it."""

from __future__ import annotations

from typing import Final

from preshuffle.api.pages.formats import number
from preshuffle.api.pages.pictures.layout_picture import Line, Picture
from preshuffle.api.pages.pictures.series import Series, series_of
from preshuffle.registry.base.ranges import range_text

STRETCHES: Final = 24
"""Stretches of gate and up that are drawn at most."""


def stretches(picture: Picture) -> int:
    """Count the stretches of gate and of up in one expert's memory."""
    rows, k = picture.tensor.shape
    return rows * k * picture.tensor.unit_bytes // (picture.alternation or 1)


def strip_words(picture: Picture) -> str:
    """Describe how gate and up share one expert's memory."""
    if picture.tensor.order is None:
        return "There are no gate and up rows in this tensor."
    if picture.alternation is None:
        return "Gate and up do not alternate evenly."
    each = "byte" if picture.alternation == 1 else f"{number(picture.alternation)} bytes"
    row = picture.tensor.shape[1] * picture.tensor.unit_bytes
    if picture.alternation % row == 0:
        count = picture.alternation // row
        each += f" ({number(count)} {'row' if count == 1 else 'rows'})"
    total = stretches(picture)
    if total == 2:
        return f"Gate and up lie apart: one expert is {each} of gate, then as many of up."
    shown = f"; the first {STRETCHES} of {number(total)} stretches are drawn" if total > STRETCHES else ""
    return f"Gate and up alternate every {each}{shown}."


def memory_words(picture: Picture) -> str:
    """Describe what the first line of memory holds."""
    line = picture.lines[0].cells
    unit = picture.tensor.unit
    piece = f"{picture.run} {unit}s" if picture.run > 1 else f"one {unit}"
    names = ", ".join(cell.name for cell in line[:4])
    sentence = f"Each cell is {piece} of a row; a line is {len(line)} cells. Memory starts with {names}, …"
    return f"{sentence} (g: gate row, u: up row)." if picture.tensor.order else f"{sentence} (r: row)."


def line_columns(picture: Picture, line: Line) -> str:
    """Describe which part of K a line of memory holds."""
    if picture.tensor.unit == "value":
        return ""
    starts = sorted({cell.k for cell in line.cells})
    if starts == list(range(starts[0], starts[-1] + 1, picture.run)):
        return f"{picture.tensor.unit}s {starts[0]}–{starts[-1] + picture.run - 1}"
    return f"{picture.tensor.unit}s {', '.join(map(str, starts))}"


def span(start: int, run: int) -> str:
    """Write the units that a cell holds."""
    return range_text(start, start + run - 1, "–")


def row_places(picture: Picture) -> tuple[tuple[str, str], ...]:
    """Return rows and the byte at which each starts.

    For example ``("gate rows 0–15", "0, 16, … 240")``.
    """
    halves = {"g": "gate row", "u": "up row", "r": "row"}
    return tuple(
        (_counted(halves[series.prefix], series.first, series.last), _progression(series, picture.tensor.unit_bytes))
        for series in series_of((cell.name[0], cell.row_in_half, cell.address) for cell in picture.row_starts)
    )


def column_places(picture: Picture) -> tuple[tuple[str, str], ...]:
    """Return pieces of K and the bytes that each adds.

    For example ``("bytes 0–31, 16 at a time", "0, 256")``.
    """
    tensor, run = picture.tensor, picture.run
    if tensor.unit == "value":
        return ()
    each = f", {run} at a time" if run > 1 else ""
    return tuple(
        (
            f"{tensor.unit}s {span(series.first * run, series.count * run)}{each if series.count > 1 else ''}",
            _progression(series, tensor.unit_bytes),
        )
        for series in series_of(("", cell.k // run, cell.address) for cell in picture.column_starts)
    )


def _counted(noun: str, first: int, last: int) -> str:
    return f"{noun}{'' if first == last else 's'} {range_text(first, last, '–')}"


def _progression(series: Series, factor: int) -> str:
    values = [number((series.value + index * series.step) * factor) for index in range(series.count)]
    return ", ".join(values) if len(values) <= 4 else f"{values[0]}, {values[1]}, … {values[-1]}"
