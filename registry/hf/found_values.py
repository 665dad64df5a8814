"""Values that a configuration has, as messages show them."""

from __future__ import annotations

import json
from typing import Any, Final

_LONGEST: Final = 300
"""Characters of a value that are shown."""
_LONGEST_NAME: Final = 80
"""Characters of a name that are shown."""
_MOST_ITEMS: Final = 100


def found(value: Any) -> str:
    """Return a value as Python writes it, shortened.

    Example:
        >>> found("fp9"), len(found(["x"] * 5000))
        ("'fp9'", 301)
    """
    return cut(repr(_start(value)), _LONGEST)


def found_json(value: Any) -> str:
    """Return a value as JSON, shortened.

    Example:
        >>> found_json({"bits": None})
        '{"bits": null}'
    """
    return cut(json.dumps(_start(value), default=str), _LONGEST)


def cut(text: str, longest: int = _LONGEST_NAME) -> str:
    """Return a text, shortened where it is too long.

    Example:
        >>> cut("x" * 100, 3)
        'xxx…'
    """
    return text if len(text) <= longest else f"{text[:longest]}…"


def _start(value: Any) -> Any:
    """Return the start of a long value: more of it would not be shown."""
    if isinstance(value, str):
        return value[: _LONGEST + 1]
    if isinstance(value, list | tuple):
        return value[:_MOST_ITEMS]
    return value
