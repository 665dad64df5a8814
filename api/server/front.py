"""The door: what every request passes, in one ASGI layer in front of the routes.

It gives the request an id, asks for a token where one is needed, answers the hot reads from bytes that are kept,
counts, and writes a line to the log for what changes something or fails.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from preshuffle.api.server import heartbeat_route
from preshuffle.api.server.connection import MAX_HEAD
from preshuffle.api.web import (
    REQUEST_ID,
    Access,
    Metrics,
    ProblemError,
    Reply,
    as_problem,
    need_of,
    problem_response,
    request_id,
)
from preshuffle.registry.base.errors import PreshuffleError

log = logging.getLogger("preshuffle.api.requests")

Hot = Callable[[bytes, bytes | None], Reply | None]
"""Answers from what is kept, or None: query string, ``If-None-Match`` → the response."""

Beats = Callable[[Scope], Awaitable[bytes | None]]
"""Writes a heartbeat and returns the answer's JSON, or None."""

_Given = dict[bytes, bytes]
_JSON: Final = (b"content-type", b"application/json")
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_UNMATCHED: Final = "other"


class Door:
    """Wraps an application.

    Args:
        app: what answers.
        access: who may do what.
        metrics: where answers are counted.
        hot: paths whose GET may be answered from kept bytes.
        beats: takes heartbeats.
        hidden: paths that are not served here, whatever the application has.
    """

    def __init__(
        self,
        app: Starlette,
        access: Access,
        metrics: Metrics,
        hot: Mapping[str, Hot],
        beats: Beats,
        hidden: frozenset[str],
    ) -> None:
        """Stand in front of it."""
        self._app = app
        self._hidden = hidden
        paths = [getattr(route, "path", "") for route in app.routes]
        self._plain = frozenset(path for path in paths if "{" not in path)
        self._access = access
        self._metrics = metrics
        self._hot = hot
        self._beats = beats

    def at_once(self, scope: Scope) -> Reply | None:
        """Return the response that is kept for a request; None where the request has to go through the door.

        A head that is too large, a token that is missing: whatever is not simply let in is the door's.
        """
        hot = self._hot.get(scope["path"])
        if hot is None or scope["method"] != "GET":
            return None
        started = perf_counter()
        given, size = _read_head(scope)
        try:
            self._admit(scope, given, size)
        except ProblemError:
            return None
        reply = hot(scope["query_string"], given.get(b"if-none-match"))
        if reply is None:
            return None
        reply = _with_id(reply, given)
        self._metrics.answered("GET", scope["path"], reply.status, perf_counter() - started)
        return reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply = self.at_once(scope)
        if reply is not None:
            await _send(reply, send)
            return
        started = perf_counter()
        given, size = _read_head(scope)
        try:
            caller = self._admit(scope, given, size)
        except ProblemError as error:
            await self._pass(problem_response(error, Request(scope)), scope, receive, send, started, given)
            return
        if caller is not None:
            scope.setdefault("state", {})["caller"] = caller
        if scope["method"] == "POST" and scope["path"].endswith(_BEAT):
            try:
                body = await self._beats(scope)
            except PreshuffleError as error:
                refusal = problem_response(as_problem(error), Request(scope))
                await self._pass(refusal, scope, receive, send, started, given)
                return
            if body is not None:
                headers = (_JSON, (b"content-length", str(len(body)).encode()), _NOSNIFF)
                await _send(_with_id(Reply.of(200, headers, body), given), send)
                self._metrics.answered("POST", heartbeat_route.ROUTE, 200, perf_counter() - started)
                return
        await self._pass(self._app, scope, receive, send, started, given)

    def _admit(self, scope: Scope, given: _Given, size: int) -> str | None:
        """Return the caller's name, or None where nobody was asked.

        Raises:
            ProblemError: the request may not come in.
        """
        if size > MAX_HEAD:
            raise ProblemError("head-too-large", f"headers may have {MAX_HEAD} bytes, these have {size}")
        path = scope["path"]
        if path in self._hidden:
            raise ProblemError("not-found", f"{path} is served on the management port")
        authorization = given.get(b"authorization")
        return self._access.admit(scope["method"], path, authorization.decode("latin-1") if authorization else None)

    async def _pass(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, started: float, given: _Given
    ) -> None:
        told = given.get(b"x-request-id")
        name = request_id(told.decode("latin-1") if told else None)
        token = REQUEST_ID.set(name)
        status = 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", name.encode())]
                if not any(key == _NOSNIFF[0] for key, _ in message["headers"]):
                    message["headers"].append(_NOSNIFF)
            await send(message)

        try:
            await app(scope, receive, send_on)
        finally:
            self._count(scope, status, perf_counter() - started)
            REQUEST_ID.reset(token)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"]
        route = getattr(scope.get("route"), "path", None)
        if route is None:
            route = scope["path"] if scope["path"] in self._plain else _UNMATCHED
        self._metrics.answered(method if method in _METHODS else _UNMATCHED, route, status, seconds)
        if status >= 500 or (status >= 400 and status != 404) or _is_news(method, scope["path"]):
            level = logging.ERROR if status >= 500 and status != 503 else logging.INFO
            caller = scope.get("state", {}).get("caller")
            said: dict[str, Any] = {"method": method, "path": scope["path"], "status": status}
            said |= {"ms": round(seconds * 1000, 2), **({"caller": caller} if caller else {})}
            log.log(level, "%s %s %d", method, scope["path"], status, extra=said)


_BEAT: Final = "/heartbeat"
_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE", "PATCH"})
_WANTED: Final = frozenset({b"authorization", b"if-none-match", b"x-request-id"})


def _is_news(method: str, path: str) -> bool:
    """Whether a request changes what is shown; heartbeats, a thousand a second, do not."""
    return need_of(method, path).kind == "change" and not path.endswith(_BEAT)


def _with_id(reply: Reply, given: _Given) -> Reply:
    """Return a response with the client's request id, where it gave one."""
    told = given.get(b"x-request-id")
    return reply if told is None else reply.with_header(b"x-request-id", request_id(told.decode("latin-1")).encode())


async def _send(reply: Reply, send: Send) -> None:
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
    await send({"type": "http.response.body", "body": reply.body})


def _read_head(scope: Scope) -> tuple[_Given, int]:
    """Return the headers that the door looks at, and the size of all."""
    given: _Given = {}
    size = len(scope.get("query_string", b""))
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name in _WANTED:
            given[name] = value
    return given, size
