"""Screen of sections, tables and paragraphs, fitted to the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from preshuffle.api.commands.screens.table import Column, Row, paint, printable, render, wrap

if TYPE_CHECKING:
    from pydantic import BaseModel

_NARROWEST = 40


@dataclass(slots=True)
class Screen:
    """Collects lines; ``show`` prints them at once.

    Attributes:
        width: characters per line.
        colour: whether escape codes may be written.
    """

    width: int
    colour: bool
    lines: list[str] = field(default_factory=list)

    @staticmethod
    def of_terminal() -> Screen:
        """Return a screen for standard output.

        It has colour on a terminal only, and never with ``NO_COLOR``.
        """
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return Screen(max(_NARROWEST, shutil.get_terminal_size((100, 24)).columns), colour)

    def paint(self, text: str, style: str) -> str:
        """Return the text in a style where there is colour."""
        return paint(text, style, self.colour)

    def line(self, text: str = "") -> None:
        """Add one line as it is."""
        self.lines.append(text)

    def heading(self, title: str, remark: str = "") -> None:
        """Start a section."""
        self.lines.append("")
        text = self.paint(printable(title), "title")
        self.lines.append(f"{text}  {self.paint(printable(remark), 'dim')}" if remark else text)

    def text(self, text: str, *, indent: int = 2, style: str = "", hanging: str = "") -> None:
        """Add a paragraph, wrapped; ``hanging`` is put before its first line."""
        margin = " " * (indent + len(hanging))
        for number, line in enumerate(wrap(text, self.width - len(margin))):
            lead = " " * indent + hanging if number == 0 else margin
            self.lines.append(lead + self.paint(line, style))

    def pairs(self, pairs: Iterable[tuple[str, str]], *, indent: int = 2) -> None:
        """Add names and values, the values in one column."""
        self.table([Column(), Column(wraps=True)], [(name, value) for name, value in pairs], indent=indent)

    def table(self, columns: Sequence[Column], rows: Sequence[Row], *, indent: int = 2) -> None:
        """Add a table; one without rows adds nothing."""
        if rows:
            self.lines.append(render(columns, rows, self.width, indent=indent, colour=self.colour))

    def show(self) -> None:
        """Print everything."""
        text = "\n".join(self.lines).strip("\n")
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding))


def print_json(value: BaseModel, out: TextIO | None = None) -> None:
    """Print a model as JSON.

    It is indented for a terminal, one line for a program, and always UTF-8.
    """
    stream = out or sys.stdout
    text = value.model_dump_json(indent=2 if stream.isatty() else None)
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
    if encoding != "utf8":
        # JSON may escape everything that is not ASCII, so it survives any encoding
        text = "".join(char if char.isascii() else _escaped(char) for char in text)
    print(text, file=stream)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def short_digest(digest: str) -> str:
    """Shorten a digest to its kind and 12 hexadecimal digits."""
    kind, _, value = digest.partition(":")
    return f"{kind}:{value[:12]}"


def shape_text(shape: Sequence[int]) -> str:
    """Format a shape as ``128×3072×3072``."""
    return "×".join(map(str, shape))
