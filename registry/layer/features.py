"""AITER features: known by version, or probed in its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.suggestions import near
from preshuffle.registry.base.versions import on_the_way_to, version_key
from preshuffle.registry.entries import FeatureEntry
from preshuffle.registry.kernels import is_newest
from preshuffle.registry.loading import Book

How = Literal["by version", "probed", "unknown"]


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
    how: Mapping[str, How]


def features_of(book: Book, aiter: str | None = None, probed: Mapping[str, bool] | None = None) -> Features:
    """Say which of the book's features an AITER has.

    Tags have cherry-picks, so what was probed counts before what the version tells. A development build of the release
    that has something first (or no more) may have it or not: that is not known.

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
    if wrong := unknown_features(book, probed):
        raise QueryError(list(wrong))
    has: dict[str, bool | None] = {}
    how: dict[str, How] = {}
    for name, entry in book.features.items():
        by_version = None if aiter is None else has_by_version(entry, aiter)
        has[name] = probed.get(name, by_version)
        how[name] = "probed" if name in probed else "unknown" if by_version is None else "by version"
    return Features(aiter, has, how)


def unknown_features(book: Book, probed: Mapping[str, bool]) -> tuple[FieldProblem, ...]:
    """Return a problem for each probed feature that is unknown.

    It names the nearest ones.
    """
    known = book.features
    return tuple(
        FieldProblem("aiter_features", f"unknown feature {name!r}", near(name, known))
        for name in probed
        if name not in known
    )


def behaves_as(book: Book, aiter: str | None, probed: Mapping[str, bool]) -> str | None:
    """Return the version that a build behaves as.

    The first release with all that was found in it, or its own if newer. Of a development build that may lack what was
    found, it is that release.

    Raises:
        InvalidVersionError: ``aiter`` is not a version.
    """
    if aiter is None or is_newest(aiter):
        return aiter
    found = [book.features[name].since for name, there in probed.items() if there and name in book.features]
    open_ones = [since for since in found if on_the_way_to(aiter, since)]
    return max(open_ones or [aiter, *found], key=version_key)


def has_by_version(entry: FeatureEntry, aiter: str) -> bool | None:
    """Whether a version has a feature.

    None for a development build of the very release that begins or ends it.

    Raises:
        InvalidVersionError: ``aiter`` is not a version.
    """
    return True if _backported(entry, aiter) else _has(entry.since, entry.until, aiter)


def _backported(entry: FeatureEntry, aiter: str) -> bool:
    return not is_newest(aiter) and any(_has(first, end, aiter) for first, end in entry.backports)


def why_lacking(entry: FeatureEntry, aiter: str | None, probed: Mapping[str, bool] | None = None) -> str | None:
    """Return why a feature is missing or unknown.

    None where it is there, or where no version is known.

    Raises:
        InvalidVersionError: ``aiter`` is not a version.
    """
    found = f", found {aiter}" if aiter else ""
    if probed and entry.id in probed:
        return None if probed[entry.id] else f"needs AITER's {entry.id}{found}, probed: it is not there"
    if aiter is None or _backported(entry, aiter):
        return None
    return _why(entry.id, entry.since, entry.until, aiter)


def _has(since: str, until: str | None, aiter: str) -> bool | None:
    if is_newest(aiter):  # a development build whose content is known
        return until is None
    key = version_key(aiter)
    if any(bound and on_the_way_to(aiter, bound) for bound in (since, until)):
        return None
    return version_key(since) <= key and (until is None or key < version_key(until))


@lru_cache(maxsize=4096)
def _why(name: str, since: str, until: str | None, aiter: str) -> str | None:
    has = _has(since, until, aiter)
    if has:
        return None
    bound = (
        f"until {until}"
        if until and (is_newest(aiter) or version_key(aiter) >= version_key(since))
        else f"since {since}"
    )
    known = "by version"
    if has is None:
        known = "a development build: whether it has it is not known by version; probe it (aiter_features)"
    return f"needs AITER's {name} ({bound}), found {aiter}, {known}"
