"""The management port: probes and metrics beside the service, where only the cluster's own tools come."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from preshuffle.api.server.listen import config_of
from preshuffle.api.web import ProblemError, problem_response

SERVED: Final = frozenset({"/healthz", "/readyz", "/metrics"})


class Only:
    """Lets some paths of an application through, and no others."""

    def __init__(self, app: ASGIApp, paths: frozenset[str]) -> None:
        """Stand in front of it."""
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer that nothing is there."""
        if scope["type"] == "http" and scope["path"] not in self._paths:
            valid = ", ".join(sorted(self._paths))
            error = ProblemError("not-found", f"no such path: {scope['path']}; here are {valid}")
            await problem_response(error, Request(scope))(scope, receive, send)
            return
        await self._app(scope, receive, send)


@contextmanager
def served_beside(app: ASGIApp, listener: socket.socket, head_seconds: float) -> Iterator[None]:
    """Serve the management paths of an application in a thread of their own while the block runs."""
    server = uvicorn.Server(config_of(Only(app, SERVED), lambda _scope: None, head_seconds, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), name="management", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=5)
