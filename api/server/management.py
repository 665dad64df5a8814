"""Management port: probes and metrics on a socket of their own."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from preshuffle.api.server.listen import config_of
from preshuffle.api.server.origin import check_origin
from preshuffle.api.web import ProblemError, problem_response

log = logging.getLogger("preshuffle.api.requests")

_CONNECTIONS: Final = 64
SERVED: Final = frozenset({"/healthz", "/readyz", "/metrics"})


class OnlyPaths:
    """ASGI layer that serves some paths of an application and no others."""

    def __init__(self, app: ASGIApp, paths: frozenset[str], own_names: frozenset[str] | None) -> None:
        """Wrap it; ``own_names`` are those of ``check_origin``."""
        self._app = app
        self._paths = paths
        self._own_names = own_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 404."""
        try:
            if scope["type"] == "http":
                self._admit(scope)
        except ProblemError as error:
            client = scope["client"][0] if scope.get("client") else "unknown"
            message = "the management port refused %s from %s: %s"
            log.warning(message, scope["method"], client, error.kind, extra={"client": client})
            await problem_response(error, Request(scope))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        check_origin(scope, self._own_names)
        if scope["path"] not in self._paths:
            valid = ", ".join(sorted(self._paths))
            raise ProblemError("not-found", f"no such path: {scope['path']}; this port serves {valid}")


@contextmanager
def served_beside(
    app: ASGIApp, listener: socket.socket, head_seconds: float, own_names: frozenset[str] | None
) -> Iterator[None]:
    """Serve the management paths in a thread while the block runs."""
    paths = OnlyPaths(app, SERVED, own_names)
    server = uvicorn.Server(config_of(paths, listener, head_seconds, _CONNECTIONS, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), name="management", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=5)
