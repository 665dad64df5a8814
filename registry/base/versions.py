"""Versions of AITER and of engines, ordered as PEP 440 says.

AITER's own builds look like ``0.1.7.post2.dev18``, ``0.1.20.post1`` or ``0.1.20.dev+g1a2b3c4``. The package
``packaging`` parses and compares them; it is imported on first use.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.version import Version

_LONGEST = 128


class InvalidVersionError(ValueError):
    """Version string that PEP 440 does not allow."""


@lru_cache(maxsize=512)
def version_key(version: str) -> Version:
    """Parse a version for comparison; a local part (``+g…``) does not count.

    Args:
        version: A version such as ``0.1.7.post2.dev18`` or ``0.1.20.dev+ge4048607a5``, of 128 characters at most.

    Raises:
        InvalidVersionError: The string is not a PEP 440 version.

    Example:
        >>> version_key("0.1.7") < version_key("0.1.7.post2.dev18") < version_key("0.1.8")
        True
        >>> version_key("0.1.20.dev+gabc") < version_key("0.1.20")
        True
    """
    from packaging.version import InvalidVersion, Version

    text = version.strip(" \t\n\r")
    if len(text) > _LONGEST:
        found = f"{text[:20]!r}… ({len(text)} characters)"
        raise InvalidVersionError(f"{found} is not a version: it may have {_LONGEST} characters")
    try:
        if not (text.isascii() and text.isprintable()):  # packaging strips white space of every kind
            raise InvalidVersion(text)
        parsed = Version(text)
    except InvalidVersion:
        raise InvalidVersionError(f"{version!r} is not a version (PEP 440), for example 0.1.20.post1") from None
    return Version(parsed.public) if parsed.local else parsed


def release_of(key: Version) -> tuple[int, ...]:
    """Return the release numbers without trailing zeros: ``(0, 1, 20)`` of 0.1.20.0.dev3."""
    release = key.release
    while len(release) > 1 and release[-1] == 0:
        release = release[:-1]
    return release


def on_the_way_to(version: str, release: str) -> bool:
    """Say whether a development build began before a release.

    Such a build may have what that release changes, or not. A post-release of the release before it is made while the
    next one is developed.

    Example:
        >>> on_the_way_to("0.1.20.dev+gabcdef0", "0.1.20"), on_the_way_to("0.1.19.post1.dev2", "0.1.20")
        (True, False)
        >>> on_the_way_to("0.1.20.dev+gabcdef0", "0.1.19.post1"), on_the_way_to("0.1.20.dev3", "0.1.18.post1")
        (True, False)
    """
    key, bound = version_key(version), version_key(release)
    if key.epoch != bound.epoch or not key.is_devrelease or bound.is_devrelease:
        return False
    if bound.is_postrelease and not key.is_postrelease:
        *front, last = key.release
        return (*front, last - 1) == bound.release
    return release_of(key) == release_of(bound) and key < bound


def local_commit(version: str) -> str | None:
    """Return the commit in a local part such as ``+ge4048607a5.d20260822``.

    Example:
        >>> local_commit("0.1.20.dev3+ge4048607a5.d20260822")
        'e4048607a5'
    """
    match = re.search(r"\+(?:.*[.])?g([0-9a-f]{7,40})(?:[.]|$)", version.strip().lower())
    return match[1] if match else None


def version_identity(version: str) -> tuple[Version, str | None]:
    """Return the version and, of a development build, its commit."""
    return version_key(version), local_commit(version)
