"""PEP 440 versions, as far as comparing AITER releases needs them.

AITER's own builds look like ``0.1.7.post2.dev18``, ``0.1.20.post1`` or ``0.1.20.dev+g1a2b3c4``. The order is the one
of PEP 440 ("Summary of permitted suffixes and relative ordering"); a local part (``+g…``) does not take part in it.
"""

import re
from functools import lru_cache

_PATTERN = re.compile(
    r"^v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[-_.]?(?P<pre>alpha|beta|preview|pre|a|b|c|rc)[-_.]?(?P<pre_n>\d*))?"
    r"(?P<post>-(?P<post_implicit>\d+)|[-_.]?(?:post|rev|r)[-_.]?(?P<post_n>\d*))?"
    r"(?P<dev>[-_.]?dev[-_.]?(?P<dev_n>\d*))?"
    r"(?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?$",
    re.IGNORECASE | re.ASCII,  # Python's \d takes the digits of every script
)
_LONGEST = 128
_PRE = {"a": "a", "alpha": "a", "b": "b", "beta": "b", "c": "rc", "rc": "rc", "pre": "rc", "preview": "rc"}

VersionKey = tuple[int, tuple[int, ...], tuple[int, str, int], tuple[int, int], tuple[int, int]]


class InvalidVersionError(ValueError):
    """A version string that PEP 440 does not allow."""


def _release(text: str) -> tuple[int, ...]:
    parts = [int(part) for part in text.split(".")]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _pre(match: re.Match[str]) -> tuple[int, str, int]:
    if match["pre"]:
        return (1, _PRE[match["pre"].lower()], int(match["pre_n"] or 0))
    if match["dev"] and not match["post"]:
        return (0, "", 0)
    return (2, "", 0)


@lru_cache(maxsize=512)
def version_key(version: str) -> VersionKey:
    """Return a tuple that orders versions as PEP 440 does.

    Args:
        version: A version such as ``0.1.7.post2.dev18`` or ``0.1.20.dev+ge4048607a5``.

    Raises:
        InvalidVersionError: The string is not a PEP 440 version.

    Example:
        >>> version_key("0.1.7") < version_key("0.1.7.post2.dev18") < version_key("0.1.8")
        True
        >>> version_key("0.1.20.dev+gabc") < version_key("0.1.20")
        True
    """
    text = version.strip(" \t\n\r")
    if len(text) > _LONGEST:
        found = f"{text[:20]!r}… ({len(text)} characters)"
        raise InvalidVersionError(f"{found} is not a version: it may have {_LONGEST} characters")
    match = _PATTERN.match(text)
    if match is None:
        raise InvalidVersionError(f"{version!r} is not a version (PEP 440), for example 0.1.20.post1")
    post = (1, int(match["post_implicit"] or match["post_n"] or 0)) if match["post"] else (0, 0)
    dev = (0, int(match["dev_n"] or 0)) if match["dev"] else (1, 0)
    return (int(match["epoch"] or 0), _release(match["release"]), _pre(match), post, dev)


def is_development(version: str) -> bool:
    """Say whether a version is a development build (it has a ``dev`` part)."""
    return version_key(version)[4][0] == 0


def on_the_way_to(version: str, release: str) -> bool:
    """Say whether a version is a development build before a release: it may have what that release changes, or not.

    Example:
        >>> on_the_way_to("0.1.20.dev+gabcdef0", "0.1.20"), on_the_way_to("0.1.19.post1.dev2", "0.1.20")
        (True, False)
    """
    key, bound = version_key(version), version_key(release)
    return is_development(version) and not is_development(release) and key < bound and key[:2] == bound[:2]


def local_commit(version: str) -> str | None:
    """Return the commit that a local part such as ``+ge4048607a5`` or ``+g1a2b3c4.d20260822`` names.

    Example:
        >>> local_commit("0.1.20.dev3+ge4048607a5.d20260822")
        'e4048607a5'
    """
    match = re.search(r"\+(?:.*[.])?g([0-9a-f]{7,40})(?:[.]|$)", version.strip().lower())
    return match[1] if match else None


def version_identity(version: str) -> tuple[VersionKey, str | None]:
    """Return what tells two builds apart: the version, and the commit of a development build."""
    return version_key(version), local_commit(version)
