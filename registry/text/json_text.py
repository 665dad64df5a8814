"""Strict JSON: a key given twice is an error, as in YAML."""

from __future__ import annotations

import json
from typing import Any


class DuplicateKeyError(ValueError):
    """JSON object that has a key twice."""

    def __init__(self, key: str) -> None:
        """Name the key, shortened."""
        self.key = key if len(key) <= 80 else f"{key[:77]}..."
        super().__init__(f"duplicate key {self.key!r}")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON in which every object has each key once.

    Raises:
        DuplicateKeyError: an object has a key twice.
        ValueError: not JSON.
        RecursionError: nested too deeply.

    Example:
        >>> parse_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
            ...
        preshuffle.registry.text.json_text.DuplicateKeyError: duplicate key 'a'
    """
    return json.loads(text, object_pairs_hook=_once)


def check_keys(text: str | bytes) -> None:
    """Refuse keys that are given twice in valid JSON text.

    No number is converted.

    Raises:
        DuplicateKeyError: an object has a key twice.
    """
    json.loads(text, object_pairs_hook=_once, parse_int=len, parse_float=len)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKeyError(key)
            seen.add(key)
    return found
