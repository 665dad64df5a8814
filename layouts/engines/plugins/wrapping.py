"""Wrapping of functions that are known by dotted paths."""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Callable
from typing import Any

Around = Callable[..., Any]
"""A function that gets the original one first, then its arguments."""


def wrap(target: str, around: Around) -> None:
    """Replace a function or a method by one that calls ``around``.

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
