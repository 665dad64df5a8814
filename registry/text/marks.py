"""Marks: where the values of a parsed YAML text stand in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from preshuffle.registry.text.field_problems import Path

_Items = Mapping[str, Any] | Sequence[Any]


class Marks:
    """Marks of keys and items, by the container that holds them.

    The values must live as long as this.

    Attributes:
        root: the mark of the whole value.
    """

    def __init__(self) -> None:
        """Start without any."""
        self.root: Any = None
        self._marks: dict[int, _Items] = {}

    def of_items(self, container: Any, marks: _Items) -> None:
        """Store the marks of a container's keys or items."""
        self._marks[id(container)] = marks

    def find(self, value: Any, path: Path) -> tuple[int, int] | None:
        """Return the line and column of a path, counted from 1.

        None where the path is not in the text.
        """
        mark = self.root
        for part in path:
            known = isinstance(part, str) and part in value if isinstance(value, dict) else _has_item(value, part)
            if not known:
                return None
            mark = self._marks[id(value)][part]  # type: ignore[index]
            value = value[part]
        return None if mark is None else (mark.line + 1, mark.column + 1)


def _has_item(value: Any, part: str | int) -> bool:
    return isinstance(value, list) and isinstance(part, int) and part < len(value)
