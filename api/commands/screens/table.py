"""Plain-text tables whose columns wrap to the terminal's width."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from preshuffle.registry.base.invisible import escape_invisible

GAP = "  "
STYLES = {
    "bold": "1",
    "dim": "2",
    "good": "32",
    "bad": "1;31",
    "warn": "33",
    "name": "36",
    "title": "1;34",
}
_PIECE = re.compile(r"\s+|[^\s_,/:|+.\-→;]*[_,/:|+.\-→;]+|[^\s_,/:|+.\-→;]+")
_LONGEST_WORD = 28


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell's text and style.

    Newlines in the text start new lines in the cell.
    """

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title and alignment, and whether it may wrap.

    Attributes:
        least: characters below which a column that wraps is not narrowed; 0: its longest word.
    """

    title: str = ""
    right: bool = False
    wraps: bool = False
    least: int = 0


Row = Sequence[Cell | str]


def paint(text: str, style: str, colour: bool) -> str:
    """Return the text in a style, or unchanged without colour."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if colour and style and text else text


def printable(text: str) -> str:
    """Escape invisible characters: no input may steer a terminal."""
    return escape_invisible(text, keep="\n")


def wrap(text: str, width: int) -> list[str]:
    """Break a text into lines of at most ``width`` characters.

    It breaks at spaces, else after ``_ , / : | + . - ;``, else anywhere.

    Example:
        >>> wrap("flydsl_moe1_afp4_wfp4_bf16", 16)
        ['flydsl_moe1_', 'afp4_wfp4_bf16']
    """
    lines: list[str] = []
    for paragraph in printable(text).split("\n"):
        words = re.findall(r"\S+", paragraph)
        line = ""
        for word in words:
            joined = f"{line} {word}" if line else word
            if len(joined) <= width:
                line = joined
                continue
            if len(word) <= width:
                lines.append(line)
                line = word
                continue
            lead = f"{line} " if line else ""
            for piece in _PIECE.findall(word):
                if lead.strip() and len(lead) + len(piece) > width:
                    lines.append(lead.rstrip())
                    lead = ""
                lead += piece
                while len(lead) > width:
                    lines.append(lead[:width])
                    lead = lead[width:]
            line = lead
        lines.append(line)
    return lines


def render(columns: Sequence[Column], rows: Sequence[Row], width: int, *, indent: int = 2, colour: bool = False) -> str:
    """Format rows as a table of ``width`` characters, where possible.

    Columns that may wrap are narrowed, the widest first, down to their longest word; columns that may not keep their
    width, whatever the terminal's is.
    """
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    sizes = _widths(columns, cells, width - indent)
    lines: list[str] = []
    if any(column.title for column in columns):
        cells.insert(0, [Cell(column.title, "dim") for column in columns])
    for row in cells:
        parts = [wrap(cell.text, size) for cell, size in zip(row, sizes, strict=True)]
        for number in range(max(len(part) for part in parts)):
            line = [
                Cell(part[number] if number < len(part) else "", cell.style)
                for part, cell in zip(parts, row, strict=True)
            ]
            lines.append(_line(line, columns, sizes, indent, colour))
    return "\n".join(lines)


def _line(cells: Sequence[Cell], columns: Sequence[Column], sizes: Sequence[int], indent: int, colour: bool) -> str:
    out = " " * indent
    pending = ""
    for cell, column, size in zip(cells, columns, sizes, strict=True):
        blank = " " * (size - len(cell.text))
        out += pending + (blank if column.right else "") + paint(cell.text, cell.style, colour)
        pending = ("" if column.right else blank) + GAP
    return out.rstrip()


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], room: int) -> list[int]:
    sizes: list[int] = []
    least: list[int] = []
    for index, column in enumerate(columns):
        lines = [line for row in rows for line in printable(row[index].text).split("\n")]
        natural = max([len(column.title), *(len(line) for line in lines)])
        words = [len(piece) for line in (column.title, *lines) for piece in _PIECE.findall(line)]
        shortest = max(column.least, min(_LONGEST_WORD, max(words, default=0)))
        sizes.append(natural)
        least.append(min(natural, max(shortest, 6)) if column.wraps else natural)
    excess = sum(sizes) + len(GAP) * (len(columns) - 1) - room
    while excess > 0:
        candidates = [index for index, size in enumerate(sizes) if size > least[index]]
        if not candidates:
            break
        widest = max(candidates, key=lambda index: sizes[index])
        sizes[widest] -= 1
        excess -= 1
    return sizes
