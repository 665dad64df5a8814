"""Cached JSON responses: full, compressed, or 304 Not Modified."""

from __future__ import annotations

import gzip
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from preshuffle.registry.base.frozen import Frozen

MIN_COMPRESSED: Final = 1024
"""Bytes; a shorter body is sent as it is."""
IF_NONE_MATCH: Final[dict[str, Any]] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "the entity tags that the client has; 304 where one of them is current",
}
NOT_MODIFIED: Final[dict[int | str, dict[str, Any]]] = {304: {"description": "The client has it"}}
_LEVEL: Final = 6


class CachedResponse:
    """JSON body with its ETag, serialised and compressed once.

    A compressed body has the ETag in its weak form: its bytes are others than those of the strong one.
    """

    def __init__(self, body: bytes, etag: str) -> None:
        """Store a body and its entity tag, quotes included."""
        headers = {"ETag": etag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        if len(body) >= MIN_COMPRESSED:
            headers["Vary"] = "Accept-Encoding"
        self.etag = etag
        self._full = Response(body, headers=headers, media_type="application/json")
        self._unchanged = Response(status_code=304, headers=headers)
        self._compressed: Response | None = None

    @staticmethod
    def of(value: Frozen, digest: str) -> CachedResponse:
        """Serialise a value whose content the digest identifies."""
        return CachedResponse(value.model_dump_json().encode(), f'"{digest}"')

    def answer(self, if_none_match: str | None, compressed: bool = False) -> Response:
        """Return 304 where the client has the body, else the body."""
        if if_none_match is not None and matches(if_none_match, self.etag):
            return self._unchanged
        if not compressed or len(self._full.body) < MIN_COMPRESSED:
            return self._full
        if self._compressed is None:
            headers = {name: self._full.headers[name] for name in ("cache-control", "x-content-type-options", "vary")}
            headers |= {"ETag": weak(self.etag), "Content-Encoding": "gzip"}
            body = gzip.compress(bytes(self._full.body), _LEVEL, mtime=0)
            self._compressed = Response(body, headers=headers, media_type="application/json")
        return self._compressed

    async def respond(self, request: Request) -> Response:
        """Answer a request that came through the routes.

        The response is a new one: the layer that compresses it changes its headers.
        """
        response = self.answer(request.headers.get("if-none-match"))
        if response is not self._full:
            return response
        return Response(
            self._full.body, headers={"ETag": self.etag, "Cache-Control": "no-cache"}, media_type="application/json"
        )


def matches(condition: str, etag: str) -> bool:
    """Whether an ``If-None-Match`` names an ETag (weak comparison, RFC 9110)."""
    tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
    return "*" in tags or etag in tags


def weak(etag: str) -> str:
    """Return the weak form of an ETag."""
    return etag if etag.startswith("W/") else f"W/{etag}"
