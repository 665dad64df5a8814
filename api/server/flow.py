"""Flow control of connections: what is read when."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from uvicorn.protocols.http.flow_control import FlowControl

_AT_ONCE: Final = 4
"""Connections that may send more of a large body before the event loop looks at all others."""


class Reader(Protocol):
    """Connection that waits to read on."""

    loop: asyncio.AbstractEventLoop

    def go_on_reading(self) -> None:
        """Read on."""


class HeldFlow(FlowControl):
    """Flow control that resumes reading only when nothing is left to parse."""

    held = False

    def resume_reading(self) -> None:
        """Resume, unless bytes wait that were read before."""
        if not self.held:
            super().resume_reading()


class ReadingTurns:
    """Queue of connections with large bodies.

    Small requests are so not behind all of them.
    """

    def __init__(self) -> None:
        """Start with an empty queue."""
        self._waiting: deque[Reader] = deque()

    def wait(self, connection: Reader) -> None:
        """Stop reading from a connection until its turn."""
        self._waiting.append(connection)
        if len(self._waiting) == 1:
            connection.loop.call_soon(self._next)

    def _next(self) -> None:
        for _ in range(min(_AT_ONCE, len(self._waiting))):
            connection = self._waiting.popleft()
            connection.go_on_reading()
        if self._waiting:
            self._waiting[0].loop.call_soon(self._next)
