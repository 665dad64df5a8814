"""Listening sockets, and uvicorn's configuration on them."""

from __future__ import annotations

import errno
import ipaddress
import logging
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from preshuffle.api.errors import ServeError
from preshuffle.api.server.accept_queue import BACKLOG, AcceptQueue
from preshuffle.api.server.connection import MAX_CONNECTIONS, Connection, Limits
from preshuffle.api.server.front import Front
from preshuffle.api.settings import Settings

log = logging.getLogger("preshuffle.api")

_ACCEPTED: Final = 32
"""Connections that the event loop accepts per turn: libuv takes one per socket, so this one is listened on as often."""
_OTHER_FILES: Final = 1024
"""File descriptors for connections that wait to be refused, the store, and child processes."""
GRACE_S: Final = 4
"""Seconds that running requests get after the signal to stop."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def check_host(settings: Settings) -> None:
    """Refuse a host that other machines reach, unless tokens are needed.

    Raises:
        ServeError: says what to do.
    """
    if not is_loopback(settings.host) and settings.tokens is None:
        raise ServeError(
            f"{settings.host} can be reached from other machines, and every request would be open to them. "
            "Give a file of tokens with --tokens (PRESHUFFLE_TOKENS; `preshuffle token` makes one), or listen on "
            "127.0.0.1"
        )


def own_names(settings: Settings) -> frozenset[str] | None:
    """Return host names allowed besides loopback addresses; None: any.

    Without tokens, a page of any site could send the browser here under a name of its own (DNS rebinding).
    """
    return None if settings.tokens is not None else frozenset({"localhost", settings.host.lower()})


def is_loopback(host: str) -> bool:
    """Whether a host is reached from this machine alone.

    Raises:
        ServeError: the host is not known.
    """
    hosts = [str(address[0]).partition("%")[0] for *_, address in _addresses(host, 0)]
    return all(ipaddress.ip_address(host).is_loopback for host in hosts)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and listens.

    Clients wait from then on instead of being refused.

    Raises:
        ServeError: the address is taken, is not this machine's or needs rights.
    """
    family, kind, protocol, _, address = _addresses(host, port)[0]
    listener = socket.socket(family, kind, protocol)  # asyncio sets TCP_NODELAY only where the protocol is named
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ServeError(f"cannot listen on {_shown(host, port)}: {_advice(error)}") from None
    return listener


def url_of(listener: socket.socket, host: str) -> str:
    """Return the URL of a listening socket."""
    return f"http://{_shown(host, listener.getsockname()[1])}"


def run(app: Front, listener: socket.socket, on_stop: Callable[[], None], head_seconds: float) -> None:
    """Serve with one worker until SIGTERM or SIGINT; running requests are finished.

    Args:
        app: what answers.
        listener: a bound socket.
        on_stop: called on the signal, before running requests are waited for: it ends streams, which never end alone.
        head_seconds: how long a request line and its headers may take to arrive.
    """
    config = config_of(app, listener, head_seconds, _most_connections(), timeout_graceful_shutdown=GRACE_S)
    server = _Server(config, on_stop)
    with _signals_stop(server):
        server.run(sockets=[listener, *(listener.dup() for _ in range(_ACCEPTED - 1))])


def config_of(
    app: ASGIApp, listener: socket.socket, head_seconds: float, connections: int, **options: Any
) -> uvicorn.Config:
    """Return uvicorn's configuration: no access log, no proxy headers, limits on connections."""
    limits = Limits(head_seconds, connections, AcceptQueue(listener))
    return uvicorn.Config(
        app,
        http=partial(Connection, limits=limits),  # type: ignore[arg-type]
        backlog=BACKLOG,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        **options,
    )


def _most_connections() -> int:
    """Return how many clients may connect; each needs a file descriptor, and so does other work."""
    soft, hard = (_number(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    enough = MAX_CONNECTIONS + _OTHER_FILES
    if soft < enough:
        soft = min(hard, enough)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return min(MAX_CONNECTIONS, max(soft - _OTHER_FILES, soft // 2))


def _number(limit: int) -> int:
    return 1 << 30 if limit == resource.RLIM_INFINITY else limit


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info("stopping; running requests get %d s", GRACE_S, extra={"event": "stopping"})
        self._on_stop()
        await super().shutdown(sockets)


@contextmanager
def _signals_stop(server: uvicorn.Server) -> Iterator[None]:
    """Stop a server on signals that arrive before uvicorn takes them.

    The signal that it raises again after its shutdown ends nothing: the store must be closed first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        server.should_exit = True

    before = [(number, signal.signal(number, stop)) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ServeError(f"--host {host!r} is not an address of this machine: {error.strerror}") from None
    return found  # type: ignore[return-value]


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; stop what listens there, or take another with --port (0: a free one)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address; valid: one of its own with --host"
    if error.errno == errno.EACCES:
        return "no right to this port; take one above 1023 with --port"
    return str(error.strerror)
