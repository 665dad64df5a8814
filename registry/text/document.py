"""Document: parsed YAML or JSON with the place of each value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.text.field_problems import Path


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed YAML file: plain values, and its text, in which the place of any of them is looked up when needed."""

    name: str
    value: Any
    text: str

    def mark(self, path: Path) -> tuple[int, int] | None:
        """Return the line and column of the key or item at a path, counted from 1; None where it is not there."""
        from preshuffle.registry.text.positions import find_mark

        return find_mark(self.text, path)

    def line(self, path: Path) -> int:
        """Return the line of a path, or of its nearest parent that is there."""
        return self.problem(path, "").line

    def problem(self, path: Path, message: str, valid: tuple[str, ...] = ()) -> Problem:
        """Return a problem at a path; where the path itself is not in the file, at its nearest parent."""
        marks = (self.mark(path[:end]) for end in range(len(path), -1, -1))
        line, column = next((mark for mark in marks if mark is not None), (1, 1))
        return Problem(self.name, line, column, message, valid)
