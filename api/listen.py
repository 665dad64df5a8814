"""The socket: bound before anything is served, so that what is wrong with the address is one clear error."""

from __future__ import annotations

import errno
import ipaddress
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI

from preshuffle.api.errors import ServeError
from preshuffle.api.settings import Settings

_BACKLOG: Final = 512
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def check_host(settings: Settings) -> None:
    """Refuse a host that others can reach: nothing asks who they are.

    Raises:
        ServeError: says what to do.
    """
    if not is_loopback(settings.host) and not settings.insecure_any_host:
        raise ServeError(
            f"{settings.host} can be reached from other machines, and every request would be open to them. "
            "Listen on 127.0.0.1 (behind a proxy that asks who they are), or say --insecure-any-host "
            "(PRESHUFFLE_INSECURE_ANY_HOST=1) where the network itself is closed"
        )


def is_loopback(host: str) -> bool:
    """Whether a host means this machine alone.

    Raises:
        ServeError: the host is not known.
    """
    hosts = [str(address[0]).partition("%")[0] for *_, address in _addresses(host, 0)]
    return all(ipaddress.ip_address(host).is_loopback for host in hosts)


def bind(host: str, port: int) -> socket.socket:
    """Bind and listen: from here on clients wait instead of being refused.

    Raises:
        ServeError: the address is taken, is not this machine's or needs rights.
    """
    family, kind, protocol, _, address = _addresses(host, port)[0]
    listener = socket.socket(family, kind, protocol)  # asyncio sets TCP_NODELAY only where the protocol is named
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ServeError(f"cannot listen on {_shown(host, port)}: {_advice(error)}") from None
    return listener


def url_of(listener: socket.socket, host: str) -> str:
    """Return the URL that the socket answers at."""
    return f"http://{_shown(host, listener.getsockname()[1])}"


def run(app: FastAPI, listener: socket.socket) -> None:
    """Serve with one worker until SIGTERM or SIGINT; requests that run are finished."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=10
    )
    with _signals_stop_quietly():
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def _signals_stop_quietly() -> Iterator[None]:
    """Uvicorn raises the signal once more after it has shut down: that must not kill us before we have closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [(number, signal.signal(number, lambda *_: None)) for number in _SIGNALS]
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
