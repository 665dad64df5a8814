"""Document: parsed YAML or JSON with the position of each value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.text.field_problems import Path


@dataclass(frozen=True, slots=True)
class Document:
    """Parsed YAML file: its plain values, and its text.

    The position of a value is found in the text only when it is needed.
    """

    name: str
    value: Any
    text: str

    def mark(self, path: Path) -> tuple[int, int] | None:
        """Return the line and column of a path, counted from 1.

        None where the path is not in the file.
        """
        from preshuffle.registry.text.positions import find_mark

        return find_mark(self.text, path)

    def line(self, path: Path) -> int:
        """Return the line of a path or of its nearest parent."""
        return self.problem(path, "").line

    def problem(self, path: Path, message: str, valid: tuple[str, ...] = ()) -> Problem:
        """Return a problem placed at a path or at its nearest parent."""
        marks = (self.mark(path[:end]) for end in range(len(path), -1, -1))
        line, column = next((mark for mark in marks if mark is not None), (1, 1))
        return Problem(self.name, line, column, message, valid)
