"""``GET /v1/events``: server-sent events that say only that something changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from enum import Enum
from typing import Final

from fastapi import APIRouter, Depends, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from preshuffle.api.web import ProblemError, problems

TAGS: Final[list[str | Enum]] = ["events"]
MAX_LISTENERS: Final = 512
EXAMPLE: Final = "event: changed\ndata: {}\n\n"
_RETRY_MS: Final = 2000
"""After which a browser connects again."""


class ChangeSignal:
    """Wakes every listener when shown data has changed. Thread-safe."""

    def __init__(self) -> None:
        """Start without listeners."""
        self._listeners: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._round = 0

    def changed(self) -> None:
        """Wake every listener."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        self._closed = True
        self.changed()

    def end_streams(self) -> None:
        """End the running streams; clients connect again, with valid tokens."""
        self._round += 1
        self.changed()

    async def listener(self) -> AsyncIterator[asyncio.Event]:
        """Register a listener while its request lasts.

        Raises:
            ProblemError: there are too many already.
        """
        if len(self._listeners) >= MAX_LISTENERS:
            detail = f"{MAX_LISTENERS} clients listen already"
            raise ProblemError("too-many-listeners", detail, headers={"Retry-After": "30"})
        self._loop = asyncio.get_running_loop()
        change = asyncio.Event()
        self._listeners.add(change)
        try:
            yield change
        finally:
            self._listeners.discard(change)

    async def events(self, change: asyncio.Event) -> AsyncIterator[ServerSentEvent]:
        """Yield an event for each change, or for several in a row."""
        yield ServerSentEvent(retry=_RETRY_MS)
        begun = self._round
        while not self._closed and self._round == begun:
            await change.wait()
            change.clear()
            if not self._closed:
                yield ServerSentEvent(event="changed", raw_data="{}")

    def _wake(self) -> None:
        for change in self._listeners:
            change.set()


def router(signal: ChangeSignal) -> APIRouter:
    """Return the route."""
    routes = APIRouter()
    listener = Depends(signal.listener)

    @routes.get(
        "/v1/events",
        tags=TAGS,
        operation_id="events",
        summary="Hear that something changed",
        response_class=EventSourceResponse,
        responses={
            200: {
                "description": "a stream of `changed` events",
                "content": {"text/event-stream": {"schema": {"type": "string"}, "example": EXAMPLE}},
            },
            **problems("too-many-listeners"),
        },
    )
    async def events(response: Response, change: asyncio.Event = listener) -> AsyncIterator[ServerSentEvent]:
        response.headers["Cache-Control"] = "no-store"
        async for event in signal.events(change):
            yield event

    return routes
