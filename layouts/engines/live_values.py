"""Values of live objects: attributes behind each other, as plain words."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

import torch

from preshuffle.layouts.engines.observed_call import dtype_word
from preshuffle.registry.entries import LiveFact


class LiveObject:
    """A layer, with its quantization method and the engine's configuration.

    They are found under the names ``method`` and ``config``.
    """

    def __init__(self, layer: object, method: object = None, config: object = None) -> None:
        """Take a layer, its method and the engine's configuration."""
        self.layer = layer
        self.method = method
        self._named = {"method": method, "config": config}

    def raw(self, path: str) -> Any:
        """Return what stands at a path, or None."""
        first, _, rest = path.partition(".")
        named = bool(rest) and first in self._named
        value, names = (self._named[first], rest.split(".")) if named else (self.layer, path.split("."))
        for name in names:
            value = _attribute(value, name)
            if value is None:
                return None
        return value

    def first(self, paths: Iterable[str]) -> Any:
        """Return what stands at the first of several paths."""
        return next((value for path in paths if (value := self.raw(path)) is not None), None)

    def fact(self, fact: LiveFact) -> Any:
        """Return a fact as a plain value, or None."""
        value = plain(self.first(fact.paths))
        if isinstance(value, str):
            return fact.words.get(value, value)
        if value is None or isinstance(value, bool):
            return value
        for path in fact.times:
            factor = self.raw(path)
            if not isinstance(factor, int):
                return None
            value *= factor
        return value + sum(number for path in fact.plus if isinstance(number := self.raw(path), int))


def plain(value: Any) -> Any:
    """Return a value as a word, a number or None.

    Of an enumerator its value where that is a word, else its name; of a dtype of torch the registry's word.
    """
    if isinstance(value, torch.dtype):
        return dtype_word(value)
    if isinstance(value, bool | int | float | str) and not isinstance(value, Enum):
        return value
    inner = getattr(value, "value", None)
    if isinstance(inner, str):
        return inner
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else None


def class_names(value: object) -> frozenset[str]:
    """Return the names of an object's class and its bases."""
    return frozenset(kind.__name__ for kind in type(value).__mro__)


def _attribute(value: object, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:  # a property of the engine's that cannot be read now says nothing
        return None
