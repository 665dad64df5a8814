"""Cache of one listing, rebuilt for each registry."""

from __future__ import annotations

from collections.abc import Callable

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.answers.answers import Answers
from preshuffle.api.web import CachedResponse
from preshuffle.registry import Registry


class ListingCache:
    """One listing as the bytes that are sent."""

    def __init__(self, answers: Answers, make: Callable[[Registry], CachedResponse]) -> None:
        """Serialise with ``make``, in a thread, on the first request."""
        self._answers = answers
        self._make = make
        self._cached: tuple[Registry, CachedResponse] | None = None

    def find(self, query: bytes = b"") -> CachedResponse | None:
        """Return the cached listing of the current registry, if there is one.

        Requests with parameters have none.
        """
        cached = None if query else self._cached
        return cached[1] if cached is not None and cached[0] is self._answers.registry else None

    async def respond(self, request: Request) -> Response:
        """Answer with the listing, or with 304 where the client has it."""
        response = self.find()
        if response is None:
            registry = self._answers.registry
            response = await to_thread.run_sync(self._make, registry)
            self._cached = (registry, response)
        return await response.respond(request)
