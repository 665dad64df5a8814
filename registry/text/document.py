"""Document: parsed YAML or JSON with the position of each value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.text.field_problems import Path

Position = tuple[int, int]
_LONGEST = 2000
"""Characters of a message; what it quotes may be as long as the text."""
_LONGEST_VALID = 5000
"""Characters of the valid values that are listed."""


@dataclass(frozen=True, slots=True)
class Document:
    """Parsed YAML file: its plain values, and its text.

    Attributes:
        find: returns the line and column of a path, counted from 1; None where the path is not in the file.
    """

    name: str
    value: Any
    text: str
    find: Callable[[Path], Position | None] = field(default=lambda _: None, repr=False, compare=False)

    def mark(self, path: Path) -> Position | None:
        """Return the line and column of a path, counted from 1.

        None where the path is not in the file.
        """
        return self.find(path)

    def line(self, path: Path) -> int:
        """Return the line of a path or of its nearest parent."""
        return self.problem(path, "").line

    def problem(self, path: Path, message: str, valid: tuple[str, ...] = ()) -> Problem:
        """Return a problem placed at a path or at its nearest parent."""
        marks = (self.mark(path[:end]) for end in range(len(path), -1, -1))
        line, column = next((mark for mark in marks if mark is not None), (1, 1))
        if len(message) > _LONGEST:
            message = f"{message[:_LONGEST]}…"
        lengths = accumulate(len(value) for value in valid)
        listed = tuple(value for value, length in zip(valid, lengths, strict=True) if length <= _LONGEST_VALID)
        return Problem(self.name, line, column, message, listed)
