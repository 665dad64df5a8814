"""Suggestions: the known names closest to an unknown one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from functools import lru_cache

_LONGEST = 64
"""Characters of a name that is compared: the comparison is quadratic."""

_MANY = 500
"""Names that one is compared with."""
_CLOSELY = 12
"""Of them, those whose order of letters is compared, too."""
_LISTED = 250
"""Names that are listed where none is close."""
_BEST = 3
_ALIKE = 0.5


def close_to(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the closest names, at most three; empty where none is close.

    Example:
        >>> close_to("gpt-osss", ["gpt-oss", "glm"]), close_to("acme/new", ["gpt-oss", "glm"])
        (('gpt-oss',), ())
    """
    if len(name) > _LONGEST:
        return ()
    known = [other for other in names if len(other) <= _LONGEST]
    if len(known) > _MANY:  # too many to compare with each: those that begin alike
        known = [other for other in known if other[:2] == name[:2]][:_MANY]
    return _closest(name, tuple(known))


@lru_cache(maxsize=1024)
def _closest(name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the closest of few names; cached, since one mistake is judged under many assumptions."""
    letters = Counter(name)
    bounds = sorted(((_shared(letters, other) / (len(name) + len(other) or 1), other) for other in known), reverse=True)
    matcher = SequenceMatcher(b=name)
    best: list[tuple[float, str]] = []
    for bound, other in bounds[:_CLOSELY]:
        if bound < (best[-1][0] if len(best) == _BEST else _ALIKE):
            break
        matcher.set_seq1(other)
        if (ratio := matcher.ratio()) >= _ALIKE:
            best = sorted([*best, (ratio, other)], reverse=True)[:_BEST]
    return tuple(other for _, other in best)


def _shared(letters: Mapping[str, int], other: str) -> int:
    """Return how many letters two names have in common, twice: an upper bound of what is alike in order."""
    return 2 * sum(min(count, other.count(letter)) for letter, count in letters.items())


def meant(name: str, names: Iterable[str]) -> str:
    """Return a message's end that names the closest; else nothing.

    Example:
        >>> meant("sep61", ["sep16", "gui16"]), meant("x", ["sep16", "gui16"])
        ('; did you mean sep16?', '')
    """
    close = close_to(name, names)
    if not close:
        return ""
    *others, last = close
    return f"; did you mean {', '.join(others) + ' or ' if others else ''}{last}?"


def suggestion(name: str, names: Iterable[str], few: int = 12) -> str:
    """Return the end of a message on an unknown name.

    It is the closest names, all of them where none is close and they are few, or else how many there are.

    Example:
        >>> suggestion("sep61", ["sep16", "gui16"]), suggestion("x", ["sep16", "gui16"])
        ('; did you mean sep16?', '; valid: sep16, gui16')
    """
    known = list(names)
    if close := meant(name, known):
        return close
    if not known:
        return ""
    return f"; valid: {', '.join(known)}" if len(known) <= few else f"; none of {len(known)} is close"


def near(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the closest names, or all of them where none is close.

    Example:
        >>> near("sep61", ["sep16", "gui16", "plain"])
        ('sep16',)
    """
    known = list(names)
    return close_to(name, known) or tuple(known[:_LISTED])
