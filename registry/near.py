"""Names that are close to one that is not there."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def near(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the closest names, or all of them where none is close.

    Example:
        >>> near("sep61", ["sep16", "gui16", "plain"])
        ('sep16',)
    """
    known = list(names)
    return tuple(get_close_matches(name, known, n=3, cutoff=0.5) or known)
