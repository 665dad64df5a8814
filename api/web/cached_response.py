"""Hot reads: a listing is serialised once, when the registry is loaded, and sent as those bytes from then on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from preshuffle.registry.base.frozen import Frozen

IF_NONE_MATCH: Final[dict[str, Any]] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "the entity tags that the client has; 304 where one of them is current",
}


@dataclass(frozen=True, slots=True)
class Serialised:
    """The bytes of one listing and their entity tag."""

    body: bytes
    etag: str

    @staticmethod
    def of(value: Frozen, digest: str) -> Serialised:
        """Serialise a listing whose content the digest stands for."""
        return Serialised(value.model_dump_json().encode(), f'"{digest}"')

    async def respond(self, request: Request) -> Response:
        """Answer with the bytes, or with 304 where the client has them."""
        headers = {"ETag": self.etag, "Cache-Control": "no-cache"}
        known = request.headers.get("if-none-match")
        if known is not None and names(known, self.etag):
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers=headers, media_type="application/json")


def names(condition: str, etag: str) -> bool:
    """Whether an ``If-None-Match`` names an entity tag (compared weakly, as RFC 9110 has it)."""
    tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
    return "*" in tags or etag in tags
