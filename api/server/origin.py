"""Checks of ``Host`` and ``Origin``: against DNS rebinding and cross-site requests."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from starlette.types import Scope

from preshuffle.api.web import ProblemError

_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(?::([0-9]{0,5}))?", re.ASCII)
"""Host and port, as RFC 3986 writes them."""
_PORTS: Final = {"http": "80", "https": "443"}
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE: Final = frozenset({"same-origin", "none"})


def check_origin(scope: Scope, own_names: frozenset[str] | None) -> None:
    """Refuse requests for other hosts, and writes from other sites.

    Args:
        scope: of the request.
        own_names: names that ``Host`` may have besides loopback addresses; None where any will do, since tokens are
            needed.

    Raises:
        ProblemError: 400 no ``Host``, several or not a valid one; 421 a host that is not this one; 403 a request that
            may change something comes from another site.
    """
    host = _host_of(scope)
    if own_names is not None and not _is_own(host, own_names):
        detail = f"this service answers on this machine alone, as localhost or 127.0.0.1; Host was {host[:80]!r}"
        raise ProblemError("misdirected", detail)
    if scope["method"] not in _SAFE:
        _check_sender(scope, host)


def _host_of(scope: Scope) -> str:
    """Return the one valid ``Host``; HTTP/1.0 may have none.

    Raises:
        ProblemError: there is none, or several, or it is not valid.
    """
    hosts = _values(scope, b"host")
    if not hosts and scope.get("http_version") == "1.0":
        return ""
    if len(hosts) != 1:
        raise ProblemError("malformed-request", f"a request names one Host; this one has {len(hosts) or 'none'}")
    if not _HOST.fullmatch(hosts[0]):
        raise ProblemError("malformed-request", f"{hosts[0][:80]!r} is not a valid Host")
    return hosts[0]


def _check_sender(scope: Scope, host: str) -> None:
    """Refuse what a page of another site sends.

    Raises:
        ProblemError: one does.
    """
    if not _OWN_SITE.issuperset(value.lower() for value in _values(scope, b"sec-fetch-site")):
        raise ProblemError("cross-site", "a browser says that a page of another site sent this request")
    for origin in _values(scope, b"origin"):
        if not _same_origin(origin, host):
            raise ProblemError(
                "cross-site",
                f"a page of {origin[:80]!r} sent this request to {host!r}; a proxy between them must pass on the Host",
            )


def _values(scope: Scope, header: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for name, value in scope["headers"] if name == header]


@lru_cache(maxsize=256)
def _is_own(host: str, own_names: frozenset[str]) -> bool:
    """Whether a host is a loopback address or one of these names."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match[1].lower().strip("[]")
    if name in own_names:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=256)
def _same_origin(origin: str, host: str) -> bool:
    """Whether an origin has the host and port of ``Host``; a proxy may have ended TLS in between."""
    try:
        parts = urlsplit(origin)
        authority = _HOST.fullmatch(parts.netloc)
    except ValueError:
        return False
    own = _HOST.fullmatch(host)
    if parts.scheme not in _PORTS or authority is None or own is None:
        return False
    default = _PORTS[parts.scheme]
    return (authority[1].lower(), authority[2] or default) == (own[1].lower(), own[2] or default)
