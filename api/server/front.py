"""ASGI layer before the routes: access, cached responses, GZip, metrics, logs."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Final

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from preshuffle.api.server.connection import MAX_HEAD
from preshuffle.api.server.heartbeat_route import HEARTBEAT_PATH, HeartbeatRoute
from preshuffle.api.server.origin import check_origin
from preshuffle.api.server.root_path import set_root
from preshuffle.api.upkeep import Watcher
from preshuffle.api.web import (
    MIN_COMPRESSED,
    REQUEST_ID,
    Access,
    CachedResponse,
    Metrics,
    ProblemError,
    as_problem,
    identity_of,
    need_of,
    problem_response,
    request_id,
    set_identity,
    weak,
)
from preshuffle.registry.base.errors import PreshuffleError

log = logging.getLogger("preshuffle.api.requests")

Find = Callable[[bytes], CachedResponse | None]
"""Returns the cached response to a query string, None where there is none."""

_HEARTBEAT: Final = "/heartbeat"
_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE", "PATCH"})
_OTHER: Final = "other"
"""Label of methods and paths that are none of the service's."""
_READ: Final = frozenset({b"authorization", b"if-none-match", b"x-request-id", b"accept-encoding", b"x-forwarded-for"})
_REFUSED: Final = frozenset({401, 403, 421, 431})
"""Statuses of requests that were not let in."""
_LEVEL: Final = 6
_LONGEST_PATH: Final = 256
"""Characters of a path in the log."""
_GZIP: Final = re.compile(rb"(?i)(?:^|[,\s])gzip\s*(?:$|,|;\s*q=(?!0(?:\.0*)?\s*(?:$|,)))")
"""Matches an ``Accept-Encoding`` that names GZip, and not with weight 0."""
_DEFAULTS: Final = ((b"x-content-type-options", b"nosniff"), (b"vary", b"Accept-Encoding"))


class _Head:
    """Method, path without the root path, and the headers that the front reads."""

    __slots__ = ("headers", "method", "path", "size", "started")

    def __init__(self, scope: Scope, root: str) -> None:
        self.started = perf_counter()
        self.method: str = scope["method"]
        self.path: str = set_root(scope, root) if root else scope["path"]
        self.headers: dict[bytes, bytes] = {}
        self.size = len(scope.get("raw_path") or self.path) + len(scope.get("query_string", b""))
        for name, value in scope["headers"]:
            self.size += len(name) + len(value)
            if name in _READ:
                self.headers[name] = value

    def text(self, name: bytes) -> str | None:
        """Return a header's value."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def accepts_gzip(self) -> bool:
        """Whether the client accepts compressed bodies."""
        return _GZIP.search(self.headers.get(b"accept-encoding", b"")) is not None

    @property
    def seconds(self) -> float:
        """Seconds since the request came."""
        return perf_counter() - self.started


class Front:
    """Outermost ASGI application of the service.

    Args:
        app: what answers.
        access: who may do what.
        metrics: where responses are counted.
        cached: by path, finds the cached responses to GET requests.
        heartbeats: answers heartbeats.
        hidden: paths that are not served here, whatever the application has.
        tokens: watches the tokens; a changed file is read before the next request with a token is admitted.
        own_names: host names that requests may be for, besides loopback addresses; None: any.
        root: path under which a proxy offers the service; requests may come with or without it.
    """

    def __init__(
        self,
        app: Starlette,
        access: Access,
        metrics: Metrics,
        cached: Mapping[str, Find],
        heartbeats: HeartbeatRoute,
        hidden: frozenset[str],
        tokens: Watcher,
        own_names: frozenset[str] | None = None,
        root: str = "",
    ) -> None:
        """Wrap the application."""
        self._app = app
        self._compressing = GZipMiddleware(app, MIN_COMPRESSED, _LEVEL)
        self._access = access
        self._metrics = metrics
        self._cached = cached
        self._heartbeats = heartbeats
        self._hidden = hidden
        self._tokens = tokens
        self._token_reader = CapacityLimiter(1)
        self._own_names = own_names
        self._root = root
        paths = [getattr(route, "path", "") for route in app.routes]
        self._plain = frozenset(path for path in paths if "{" not in path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from the cache, or pass the request to the routes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head = _Head(scope, self._root)
        app: ASGIApp | None = None
        route: str | None = None
        try:
            if b"authorization" in head.headers and self._tokens.has_changed():
                await to_thread.run_sync(self._tokens.poll, limiter=self._token_reader)
            self._admit(scope, head)
            app = self._from_cache(scope, head)
            if app is not None:
                route = head.path
            elif head.method == "POST" and head.path.endswith(_HEARTBEAT):
                app = await self._heartbeats.answer(head.path, scope["query_string"])
                route = HEARTBEAT_PATH if app is not None else None
        except ProblemError as error:
            app = problem_response(error, Request(scope))
        except PreshuffleError as error:
            app = problem_response(as_problem(error), Request(scope))
        if isinstance(app, Response) and route is not None and b"x-request-id" not in head.headers:
            await app(scope, receive, send)  # nothing to add to it, and nothing to log
            self._metrics.answered(head.method, route, app.status_code, head.seconds)
        else:
            routes = self._compressing if head.accepts_gzip else self._app
            await self._pass(app or routes, scope, receive, send, head, route)

    def _admit(self, scope: Scope, head: _Head) -> None:
        """Record who sends a request that may come in.

        Raises:
            ProblemError: it may not.
        """
        if head.size > MAX_HEAD:
            detail = f"path and headers may have {MAX_HEAD} bytes together, these have {head.size}"
            raise ProblemError("head-too-large", detail)
        check_origin(scope, self._own_names)
        if head.path in self._hidden:
            raise ProblemError("not-found", f"{head.path} is served on the management port")
        name = self._access.admit(head.method, head.path, head.text(b"authorization") or None)
        if name is not None:
            set_identity(scope, name)

    def _from_cache(self, scope: Scope, head: _Head) -> Response | None:
        find = self._cached.get(head.path) if head.method == "GET" else None
        cached = find(scope["query_string"]) if find is not None else None
        if cached is None:
            return None
        return cached.answer(head.text(b"if-none-match"), head.accepts_gzip)

    async def _pass(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, head: _Head, route: str | None
    ) -> None:
        """Pass a request on; identify, count and log its response."""
        name = request_id(head.text(b"x-request-id"))
        token = REQUEST_ID.set(name)
        status = 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _finish(message, name)
            await send(message)

        try:
            await app(scope, receive, send_on)
        finally:
            self._count(scope, head, status, route)
            REQUEST_ID.reset(token)

    def _count(self, scope: Scope, head: _Head, status: int, route: str | None) -> None:
        method, path, seconds = head.method, head.path, head.seconds
        route = route or getattr(scope.get("route"), "path", None) or (path if path in self._plain else _OTHER)
        self._metrics.answered(method if method in _METHODS else _OTHER, route, status, seconds)
        level = _level_of(status)
        if level > logging.INFO or (status >= 400 and status != 404) or _is_logged(method, path):
            self._log(level, scope, head, status)
        elif log.isEnabledFor(logging.DEBUG):
            self._log(logging.DEBUG, scope, head, status)

    @staticmethod
    def _log(level: int, scope: Scope, head: _Head, status: int) -> None:
        path, client = _shown(head.path), scope["client"][0] if scope.get("client") else "unknown"
        ms = round(head.seconds * 1000, 2)
        fields: dict[str, Any] = {"method": head.method, "path": path, "status": status, "ms": ms, "client": client}
        if forwarded := head.text(b"x-forwarded-for"):
            fields["forwarded_for"] = _shown(forwarded)  # as the client or a proxy says, unproven
        if identity := identity_of(scope):
            fields["identity"] = identity
        log.log(level, "%s %s %d from %s", head.method, path, status, client, extra=fields)


def _level_of(status: int) -> int:
    """Return the level of a response: an error is ours, a warning what was refused or must wait."""
    if status >= 500 and status != 503:
        return logging.ERROR
    return logging.WARNING if status == 503 or status in _REFUSED else logging.INFO


def _shown(text: str) -> str:
    """Return a path or a header for the log: not too long, and on one line."""
    line = "".join(char if char.isprintable() else f"%{ord(char):02X}" for char in text[:_LONGEST_PATH])
    return line if len(text) <= _LONGEST_PATH else f"{line}… ({len(text)} characters)"


def _is_logged(method: str, path: str) -> bool:
    """Whether a successful request is logged: changes except heartbeats."""
    return need_of(method, path).kind == "change" and not path.endswith(_HEARTBEAT)


def _finish(start: Message, request_name: str) -> None:
    """Add the headers of every response; weaken a compressed one's ETag."""
    headers = dict(start.get("headers", ()))
    added = [(b"x-request-id", request_name.encode())]
    added += [(name, value) for name, value in _DEFAULTS if name not in headers]
    if b"content-encoding" in headers and b"etag" in headers:
        tag = weak(headers[b"etag"].decode("latin-1")).encode("latin-1")
        start["headers"] = [(name, tag if name == b"etag" else value) for name, value in start["headers"]]
    start["headers"] = [*start.get("headers", ()), *added]
