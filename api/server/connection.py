"""One connection of a client: uvicorn's, with a limit on how long and how large a request's head may be.

Without the first, a byte a minute holds a connection for ever. What can be answered at once is written at once, without
a task for it: that is most of what a kept answer costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from preshuffle.api.web import PROBLEM_TYPE, ProblemError, Reply

AtOnce = Callable[[Scope], Reply | None]
"""Returns the response to a request where it is known already."""
MAX_HEAD: Final = 32 << 10
"""Bytes of a request line and its headers."""


class Connection(HttpToolsProtocol):
    """Closes a connection whose request does not come, and answers what is no HTTP with a problem."""

    _timer: asyncio.TimerHandle | None = None
    _head = 0
    _in_body = False

    def __init__(self, *args: Any, head_seconds: float, at_once: AtOnce, **more: Any) -> None:
        """Take what uvicorn gives, how long a request line and its headers may take, and what needs no task."""
        super().__init__(*args, **more)
        self._seconds = head_seconds
        self._at_once = at_once

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first request its time."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self._seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; while they are a head that is not complete, count them and the time.

        A body is counted and timed by whoever reads it. What is left of one that nobody reads, since the answer is
        given already, is thrown away for as long as a head may take, and no longer.
        """
        before, was_in_body = self.cycle, self._in_body
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_body and not self.cycle.response_complete:
            self._arrived()
        elif self._in_body:
            self._timer = self._timer or self.loop.call_later(self._seconds, self._too_slow)
        elif self.cycle is before and not was_in_body:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._refuse("head-too-large", f"a request line and its headers may have {MAX_HEAD} bytes")
            elif self._timer is None:
                self._timer = self.loop.call_later(self._seconds, self._too_slow)

    def on_headers_complete(self) -> None:
        """Know that a body begins, be it an empty one."""
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Know that it has ended."""
        self._in_body = False
        self._arrived()
        super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: a client may ask for an upgrade, and is answered as if it had not."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Write the response that is known already; make a task for any other request.

        A client that does not read, or that has sent the next requests before this one was answered, waits its turn.
        """
        if self.transport.is_closing():
            return  # a request behind the one that asked for the end
        reply = None if self.flow.write_paused or self.pipeline else self._at_once(cycle.scope)  # type: ignore[arg-type]
        if reply is None:
            super()._start_asgi_task(cycle, app)
            return
        cycle.response_started = cycle.response_complete = True
        more = b"".join(name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers)
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"".join((reply.head, more, end, reply.body)))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse("malformed-request", "this is not an HTTP/1.1 request")

    def _arrived(self) -> None:
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
