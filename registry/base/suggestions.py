"""Suggestions: the known names closest to an unknown one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def close_to(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the closest names, at most three; empty where none is close.

    Example:
        >>> close_to("gpt-osss", ["gpt-oss", "glm"]), close_to("acme/new", ["gpt-oss", "glm"])
        (('gpt-oss',), ())
    """
    return tuple(get_close_matches(name, list(names), n=3, cutoff=0.5))


def near(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the closest names, or all of them where none is close.

    Example:
        >>> near("sep61", ["sep16", "gui16", "plain"])
        ('sep16',)
    """
    known = list(names)
    return close_to(name, known) or tuple(known)
