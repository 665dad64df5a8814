"""``POST /v1/deployments/NAME/heartbeat``, the request that comes a thousand times a second, without the router.

What is odd about one (an unknown replica, a parameter that is none) is left to the route.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.types import Scope

from preshuffle.api.fleet import NAME_PATTERN
from preshuffle.api.upkeep import Heartbeats

ROUTE: Final = "/v1/deployments/{name}/heartbeat"
_PATH: Final = re.compile(f"/v1/deployments/({NAME_PATTERN[1:-1]})/heartbeat")
_REPLICA: Final = re.compile(rb"replica=([1-9][0-9]{0,3}|0)")


class HotBeats:
    """Takes heartbeats on the event loop."""

    def __init__(self, heartbeats: Heartbeats) -> None:
        """Write with these."""
        self._heartbeats = heartbeats

    async def __call__(self, scope: Scope) -> bytes | None:
        """Return the answer's JSON once the heartbeat is written, or None where the route must answer.

        Raises:
            StoreError: the store did not take it.
        """
        found = _PATH.fullmatch(scope["path"])
        query = scope["query_string"]
        number = _REPLICA.fullmatch(query) if query else None
        if found is None or (query and number is None):
            return None
        beat = await self._heartbeats.beat(found[1], int(number[1]) if number else 0)
        return beat.model_dump_json().encode() if beat is not None else None
