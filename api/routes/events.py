"""``GET /v1/events``: server-sent events that say only that something changed; what it is, is read elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from enum import Enum
from typing import Final

from fastapi import FastAPI
from starlette.responses import Response, StreamingResponse

from preshuffle.api.web import ProblemError, problems

TAGS: Final[list[str | Enum]] = ["events"]
MOST: Final = 512
"""Listeners at once."""
EXAMPLE: Final = "event: changed\ndata: {}\n\n"
_QUIET_S: Final = 15.0
"""After so long without a change a comment keeps proxies from closing the connection."""


class Events:
    """Who listens. ``changed`` may be called from any thread."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._listeners: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def changed(self) -> None:
        """Tell everybody."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        self._closed = True
        self.changed()

    def listen(self) -> AsyncIterator[bytes]:
        """Return one listener's stream.

        Raises:
            ProblemError: there are too many already.
        """
        if len(self._listeners) >= MOST:
            raise ProblemError("too-many-listeners", f"{MOST} listen already", headers={"Retry-After": "30"})
        self._loop = asyncio.get_running_loop()
        news = asyncio.Event()
        self._listeners.add(news)
        return self._stream(news)

    async def _stream(self, news: asyncio.Event) -> AsyncIterator[bytes]:
        try:
            yield b"retry: 2000\n\n"
            while not self._closed:
                try:
                    await asyncio.wait_for(news.wait(), _QUIET_S)
                except TimeoutError:
                    yield b": quiet\n\n"
                    continue
                news.clear()
                if not self._closed:
                    yield EXAMPLE.encode()
        finally:
            self._listeners.discard(news)

    def _wake(self) -> None:
        for news in self._listeners:
            news.set()


def install(app: FastAPI, events: Events) -> None:
    """Add the route."""

    @app.get(
        "/v1/events",
        tags=TAGS,
        operation_id="events",
        summary="Hear that something changed",
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "a stream of `changed` events",
                "content": {"text/event-stream": {"schema": {"type": "string"}, "example": EXAMPLE}},
            },
            **problems("too-many-listeners"),
        },
    )
    async def listen() -> Response:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events.listen(), media_type="text/event-stream", headers=headers)
