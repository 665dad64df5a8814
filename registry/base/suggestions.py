"""Suggestions: the known names closest to an unknown one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST = 256
"""Characters of a name that is compared: the comparison is quadratic."""

_MANY = 500
"""Names that one is compared with."""
_LISTED = 250
"""Names that are listed where none is close."""


def close_to(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the closest names, at most three; empty where none is close.

    Example:
        >>> close_to("gpt-osss", ["gpt-oss", "glm"]), close_to("acme/new", ["gpt-oss", "glm"])
        (('gpt-oss',), ())
    """
    if len(name) > _LONGEST:
        return ()
    known = list(names)
    if len(known) > _MANY:  # too many to compare with each: those that begin alike
        known = [other for other in known if other[:2] == name[:2]][:_MANY]
    return tuple(get_close_matches(name, known, n=3, cutoff=0.5))


def near(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the closest names, or all of them where none is close.

    Example:
        >>> near("sep61", ["sep16", "gui16", "plain"])
        ('sep16',)
    """
    known = list(names)
    return close_to(name, known) or tuple(known[:_LISTED])
