"""Heartbeat requests, answered before the router.

A large fleet sends a thousand of them a second.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.responses import Response

from preshuffle.api.fleet import NAME_PATTERN
from preshuffle.api.upkeep import Heartbeats

HEARTBEAT_PATH: Final = "/v1/deployments/{name}/heartbeat"
"""The path of FastAPI's route too, which answers whatever is unusual: an unknown replica, a wrong parameter."""
_PATH: Final = re.compile(HEARTBEAT_PATH.replace("{name}", f"({NAME_PATTERN[1:-1]})"))
_HEADERS: Final = {"X-Content-Type-Options": "nosniff"}
_REPLICA: Final = re.compile(rb"replica=([1-9][0-9]{0,3}|0)")


class HeartbeatRoute:
    """Answers heartbeats of known replicas on the event loop."""

    def __init__(self, heartbeats: Heartbeats) -> None:
        """Write with these."""
        self._heartbeats = heartbeats

    async def answer(self, path: str, query: bytes) -> Response | None:
        """Return the response once the heartbeat is written.

        None: FastAPI's route must answer.

        Args:
            path: of the request, without the root path.
            query: the query string.

        Raises:
            StoreError: the store did not write it.
        """
        match = _PATH.fullmatch(path)
        replica = _REPLICA.fullmatch(query) if query else None
        if match is None or (query and replica is None):
            return None
        beat = await self._heartbeats.beat(match[1], int(replica[1]) if replica else 0)
        if beat is None:
            return None
        return Response(beat.model_dump_json(), headers=_HEADERS, media_type="application/json")
