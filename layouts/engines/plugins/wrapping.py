"""Wrapping of functions that are known by dotted paths."""

from __future__ import annotations

import functools
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

Around = Callable[..., Any]
"""A function that gets the original one first, then its arguments."""


def wrap(target: str, around: Around) -> None:
    """Replace a function or a method by one that calls ``around``.

    A function is replaced in every module that has imported it, too.

    Args:
        target: dotted path, such as ``package.module.Class.method``.
        around: what is called instead, with the original function before its arguments.

    Raises:
        ImportError: no module of that name can be imported.
        AttributeError: there is no such class or function.
    """
    path, _, name = target.rpartition(".")
    owner = pkgutil.resolve_name(path)
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(owner, name, wrapped)
    if isinstance(owner, ModuleType):
        rebind(original, wrapped)


def rebind(original: Any, wrapped: Any) -> int:
    """Replace a function in every module that has imported it.

    ``from module import function`` copies the reference: replacing it where it is defined reaches later imports alone.
    Returns in how many places it was replaced.
    """
    places = 0
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if not isinstance(names, dict):
            continue
        for name in [name for name, value in list(names.items()) if value is original]:
            names[name] = wrapped
            places += 1
    return places
