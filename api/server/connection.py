"""HTTP connection with limits of time and bytes in both directions.

uvicorn has none of these: a client that sends one byte a minute, many requests at once, or never reads would hold
memory for ever. The class is given to uvicorn's ``http`` option and reads attributes of uvicorn's own protocol, so the
project bounds uvicorn's version.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from httptools import HttpParserError
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from preshuffle.api.server.accept_queue import AcceptQueue
from preshuffle.api.server.byte_budget import BodySize, ByteBudget
from preshuffle.api.server.flow import HeldFlow, ReadingTurns
from preshuffle.api.server.refusals import RefusalLog, refusal

MAX_HEAD: Final = 32 << 10
"""Bytes of a request line and its headers."""
MAX_HEADERS: Final = 128
"""Headers of a request: each takes memory beyond its bytes."""
MAX_CONNECTIONS: Final = 1024
MAX_BODIES: Final = 128 << 20
"""Bytes of all bodies that are being read or answered, as they are once parsed."""
MAX_UNSENT: Final = 48 << 20
"""Bytes of all responses that clients have not read yet."""
UNREAD_SECONDS: Final = 10.0
"""How long a client may take to read ``_READ_AT_LEAST`` bytes of its response."""
_READ_AT_LEAST: Final = 16 << 10
_PIECE: Final = 4096
"""Bytes that are parsed before the number of pipelined requests is looked at."""
_BODY_PIECE: Final = 16 << 10
"""The same within a body, which costs less."""
_PIPELINED: Final = 32
"""Requests that wait on one connection; the bytes of more wait unparsed."""
_LARGE_HEAD: Final = f"a request line and its headers may have {MAX_HEAD} bytes"
_END_OF_HEAD: Final = b"\r\n\r\n"
_LINGER_S: Final = 2.0
"""Seconds in which a client may read why it was refused."""


@dataclass(frozen=True)
class Limits:
    """Limits that the connections of one server share.

    Attributes:
        head_seconds: how long a request line and its headers may take to arrive.
        connections: how many there may be.
        queue: connections that wait to be accepted.
    """

    head_seconds: float
    connections: int
    queue: AcceptQueue
    bodies: ByteBudget[Connection] = field(
        default_factory=lambda: ByteBudget(MAX_BODIES, Connection.refuse_body), init=False
    )
    turns: ReadingTurns = field(default_factory=ReadingTurns, init=False)
    refusals: RefusalLog = field(default_factory=RefusalLog, init=False)
    unsent: ByteBudget[Connection] = field(
        default_factory=lambda: ByteBudget(MAX_UNSENT, Connection.drop_unread), init=False
    )


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with limits on heads, bodies, pipelines and unread responses."""

    _timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _head = 0
    _in_body = False
    _refused = False
    _unparsed = b""
    _running: RequestResponseCycle | None = None
    _body_size = BodySize(False)
    flow: HeldFlow

    def __init__(self, *args: Any, limits: Limits, **options: Any) -> None:
        """Take uvicorn's arguments, and the limits of the server."""
        super().__init__(*args, **options)
        self._limits = limits
        self._seconds = limits.head_seconds
        self._charges: dict[RequestResponseCycle, int] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer of the first head, or end the connection."""
        super().connection_made(transport)
        self.flow = HeldFlow(transport)
        if self._limits.queue.drops(transport):
            self._refused = True
            transport.abort()
            return
        if len(self.connections) > self._limits.connections:
            self._refuse("busy", f"{self._limits.connections} connections are open already", linger=False)
            return
        self._timer = self.loop.call_later(self._seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers; give back what no running request holds."""
        self._stop_timer()
        self._stop_unread_timer()
        self._stop_sending()
        self._unparsed = b""
        for budget in (self._limits.bodies, self._limits.unsent):
            budget.release(budget.settle(self))
        for cycle, _ in self.pipeline:
            self._release(cycle)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes in small pieces, until too many requests wait.

        What follows a refusal is discarded.
        """
        if self._refused:
            return
        if self._unparsed:
            self._unparsed += data
            return
        if self.cycle is None and not self._head and len(data) > MAX_HEAD and _END_OF_HEAD not in data[:MAX_HEAD]:
            self._refuse("head-too-large", _LARGE_HEAD)
            return
        start = 0
        while start < len(data):
            end = start + (_BODY_PIECE if self._in_body else _PIECE)
            self._parse(data[start:end])
            start = end
            if self._refused or self.transport.is_closing():
                return
            if len(self.pipeline) >= _PIPELINED and start < len(data):
                self._unparsed = data[start:]
                self._hold()
                return
        if self._in_body and self._limits.bodies.held_by(self) > HIGH_WATER_LIMIT:
            self._hold()
            self._limits.turns.wait(self)

    def go_on_reading(self) -> None:
        """Resume reading a body, unless the application has to catch up."""
        if self._unparsed or self.transport.is_closing():
            return
        self.flow.held = False
        if self.cycle is None or len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()

    def _hold(self) -> None:
        self.flow.held = True
        self.flow.pause_reading()

    def _parse_rest(self) -> None:
        data, self._unparsed = self._unparsed, b""
        self.flow.held = False
        if self.parser is not None and not self.transport.is_closing():
            self.data_received(data)

    def _parse(self, data: bytes) -> None:
        """Parse bytes; limit number and time of an incomplete head's.

        Whoever reads a body limits it. The rest of a body that nobody reads, since the response has been sent, is
        discarded for as long as a head may take.
        """
        before, was_in_body = self.cycle, self._in_body
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        if self._in_body and not self.cycle.response_complete:
            self._stop_timer()
        elif self._in_body:
            self._timer = self._timer or self.loop.call_later(self._seconds, self._too_slow)
        elif self.cycle is before and not was_in_body:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._refuse("head-too-large", _LARGE_HEAD)
            elif self._timer is None:
                self._timer = self.loop.call_later(self._seconds, self._too_slow)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one too many ends parsing."""
        if len(self.headers) == MAX_HEADERS:
            self._refuse("head-too-large", f"a request may have {MAX_HEADERS} headers")
            raise HttpParserError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Note that the body begins, even an empty one."""
        self._in_body = True
        self._body_size = BodySize(any(name == b"content-type" and b"json" in value for name, value in self.headers))
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count bytes that somebody will read."""
        if self._refused:
            return
        super().on_body(body)
        if not self.cycle.response_complete:
            self._limits.bodies.take(self, self._body_size.of(body))

    def on_message_complete(self) -> None:
        """Note the body's end; it counts until the request is answered."""
        self._in_body = False
        self._stop_timer()
        if size := self._limits.bodies.settle(self):
            self._charges[self.cycle] = size
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Continue with requests that wait, or end the connection."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._end_later()
        elif self._unparsed and len(self.pipeline) == 0:
            self.loop.call_soon(self._parse_rest)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, even if its client does not read."""
        super().timeout_keep_alive_handler()
        self._end_later()

    def pause_writing(self) -> None:
        """Count unread bytes, and start the time limit for reading them."""
        super().pause_writing()
        self._limits.unsent.take(self, self.transport.get_write_buffer_size())
        if self._unread_timer is None and not self.transport.is_closing():
            self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self._check_reader)

    def resume_writing(self) -> None:
        """Note that the client reads."""
        self._limits.unsent.release(self._limits.unsent.settle(self))
        self._stop_unread_timer()
        super().resume_writing()

    def refuse_body(self, size: int) -> None:
        """Refuse the current request: all bodies together are too large."""
        if size > MAX_BODIES:
            self._refuse("body-too-large", f"parsed, this body would take more than {MAX_BODIES} bytes")
            return
        self._refuse("busy", "other requests' bodies fill the memory that there is for them; try again later")

    def drop_unread(self, _size: int = 0) -> None:
        """End a connection whose client does not read."""
        self._stop_sending()
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with a problem."""
        if not self._refused:
            self._refuse("malformed-request", "this is not an HTTP/1.1 request")

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: an upgrade is ignored, as HTTP allows."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def counted(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:  # uvicorn waits for no request any longer
                self._refuse("interrupted", "the service stops", linger=False)
            finally:
                self._release(cycle)

        self._running = cycle
        cycle.disconnected = cycle.disconnected or self.transport.is_closing()
        super()._start_asgi_task(cycle, counted)

    def _stop_sending(self) -> None:
        """Discard what the running request still answers.

        uvicorn knows of the last parsed request only.
        """
        if self._running is not None:
            self._running.disconnected = True

    def _release(self, cycle: RequestResponseCycle) -> None:
        """Give back what a request's body has taken."""
        bodies = self._limits.bodies
        bodies.release(self._charges.pop(cycle, 0))
        if self._in_body and cycle is self.cycle:
            bodies.release(bodies.settle(self))

    def _check_reader(self) -> None:
        """End the connection unless the client has read enough since the last time."""
        self._unread_timer = None
        unsent, before = self.transport.get_write_buffer_size(), self._limits.unsent.held_by(self)
        if unsent > before - _READ_AT_LEAST:
            self.drop_unread()
            return
        self._limits.unsent.release(self._limits.unsent.settle(self))
        self._limits.unsent.take(self, unsent)
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self._check_reader)

    def _end_later(self) -> None:
        if self.transport.get_write_buffer_size():
            self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def _stop_timer(self) -> None:
        self._head = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._head:
            self._refuse("request-timeout", f"the request's head did not arrive within {self._seconds:g} s")
        else:
            self.transport.close()

    def _refuse(self, kind: str, detail: str, linger: bool = True) -> None:
        """Answer with a problem and end the connection; unless many wait, the client gets a moment to read it."""
        self._refused = True
        self._limits.refusals.note(kind, self.client)
        self._stop_timer()
        running = self.cycle is not None and not self.cycle.response_complete
        if not (running and (self.cycle.response_started or self.pipeline)):
            self.transport.write(refusal(kind, detail))
        if running:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if linger and not self._limits.queue.is_long and self.transport.can_write_eof():
            self.flow.held = False
            self.flow.resume_reading()
            self.transport.write_eof()
            self.loop.call_later(_LINGER_S, self.transport.abort)
        else:
            self.transport.close()
