"""HTTP connection with time and size limits on request heads.

uvicorn has no such limit: a client that sends one byte a minute would hold its connection for ever. The class is given
to uvicorn's ``http`` option and reads attributes of uvicorn's own protocol, so the project bounds uvicorn's version.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from preshuffle.api.web import PROBLEM_TYPE, ProblemError

MAX_HEAD: Final = 32 << 10
"""Bytes of a request line and its headers."""


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with a time limit on request heads."""

    _timer: asyncio.TimerHandle | None = None
    _head = 0
    _in_body = False

    def __init__(self, *args: Any, head_seconds: float, **options: Any) -> None:
        """Take uvicorn's arguments, and the seconds that a head may take."""
        super().__init__(*args, **options)
        self._seconds = head_seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer of the first head."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self._seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes; limit number and time of an incomplete head's.

        Whoever reads a body limits it. The rest of a body that nobody reads, since the response has been sent, is
        discarded for as long as a head may take.
        """
        before, was_in_body = self.cycle, self._in_body
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_body and not self.cycle.response_complete:
            self._stop_timer()
        elif self._in_body:
            self._timer = self._timer or self.loop.call_later(self._seconds, self._too_slow)
        elif self.cycle is before and not was_in_body:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._refuse("head-too-large", f"a request line and its headers may have {MAX_HEAD} bytes")
            elif self._timer is None:
                self._timer = self.loop.call_later(self._seconds, self._too_slow)

    def on_headers_complete(self) -> None:
        """Note that the body begins, even an empty one."""
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the body has ended."""
        self._in_body = False
        self._stop_timer()
        super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: an upgrade is ignored, as HTTP allows."""

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with a problem."""
        self._refuse("malformed-request", "this is not an HTTP/1.1 request")

    def _stop_timer(self) -> None:
        self._head = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._head:
            self._refuse("request-timeout", f"the request's head did not arrive within {self._seconds:g} s")
        else:
            self.transport.close()

    def _refuse(self, kind: str, detail: str) -> None:
        problem = ProblemError(kind, detail).problem("/")
        body = problem.model_dump_json(exclude_none=True).encode()
        head = (
            f"HTTP/1.1 {problem.status} {problem.title}\r\ncontent-type: {PROBLEM_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
