"""What an AITER can do: by its version through the book's table, or as somebody has probed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from preshuffle.registry.books import Book
from preshuffle.registry.entries import FeatureEntry
from preshuffle.registry.errors import FieldProblem, QueryError
from preshuffle.registry.kernels.behaviour import is_newest
from preshuffle.registry.near import near
from preshuffle.registry.versions import is_development, version_key


@dataclass(frozen=True, slots=True)
class Features:
    """The book's features, one by one.

    Attributes:
        aiter: the version; None where it is not known.
        has: whether each is there; None where that is not known.
        how: how each is known.
    """

    aiter: str | None
    has: Mapping[str, bool | None]
    how: Mapping[str, Literal["by version", "probed", "unknown"]]


def features_of(book: Book, aiter: str | None = None, probed: Mapping[str, bool] | None = None) -> Features:
    """Say which of the book's features an AITER has.

    Tags have cherry-picks, so what was probed counts before what the version tells.

    Args:
        book: whose features.
        aiter: AITER's version.
        probed: features that were looked for in the AITER itself, and whether they were found.

    Raises:
        QueryError: a probed feature is none of the book's.
        InvalidVersionError: ``aiter`` is not a version.

    Example:
        >>> from preshuffle.registry import Registry
        >>> features = features_of(Registry.default().book, "0.1.13", {"gate_mode": True})
        >>> features.has["gate_mode"], features.how["gate_mode"], features.has["swiglu_limit"]
        (True, 'probed', False)
    """
    probed = probed or {}
    for name in probed:
        if name not in book.features:
            raise QueryError([FieldProblem("probed", f"unknown feature {name!r}", near(name, list(book.features)))])
    has: dict[str, bool | None] = {}
    how: dict[str, Literal["by version", "probed", "unknown"]] = {}
    for name, entry in book.features.items():
        has[name] = probed.get(name, None if aiter is None else why_lacking(entry, aiter) is None)
        how[name] = "probed" if name in probed else "unknown" if aiter is None else "by version"
    return Features(aiter, has, how)


def why_lacking(entry: FeatureEntry, aiter: str) -> str | None:
    """Return why an AITER has not a feature, by its version, or None where it has it.

    Raises:
        InvalidVersionError: ``aiter`` is not a version.
    """
    return _why(entry.id, entry.since, entry.until, aiter)


@lru_cache(maxsize=4096)
def _why(name: str, since: str, until: str | None, aiter: str) -> str | None:
    if is_newest(aiter):  # a development build whose content is known
        return f"needs AITER's {name} (until {until}), found {aiter}, by version" if until else None
    key = version_key(aiter)
    if key < version_key(since):
        known = "by version"
        if is_development(aiter) and key[1] == version_key(since)[1]:
            known = "a development build: whether it has it is not known by version"
        return f"needs AITER's {name} (since {since}), found {aiter}, {known}"
    if until and key >= version_key(until):
        return f"needs AITER's {name} (until {until}), found {aiter}, by version"
    return None
