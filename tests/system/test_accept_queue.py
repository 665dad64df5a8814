"""Connections that wait to be accepted: dead ones cost little, and a long queue of them is passed at once."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from preshuffle.api.server.accept_queue import BACKLOG, AcceptQueue
from support.computing import pace
from support.service.attack import connect, send_what_fits
from support.service.server import Server, running_server

WAITING = 500
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
DEAD = {
    "nothing": b"",
    "bytes": bytes(range(256)) * 16,
    "requests": b"POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
    "headers": b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 50_000,
    "a path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "stderr"


@pytest.fixture(scope="module")
def server(log: Path) -> Iterator[Server]:
    with running_server(log.parent / "store.db", stderr=log) as running:
        yield running


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Let connections wait while the block runs."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def cpu_s(server: Server) -> float:
    """Return how long the service's event loop has had a core."""
    return int(Path(f"/proc/{server.process.pid}/schedstat").read_text().split()[0]) / 1e9


def leave(server: Server, data: bytes) -> None:
    """Connect, send and close."""
    with connect(server) as peer:
        send_what_fits(peer, data, 0.02)


def whole(peer: socket.socket) -> bytes:
    answer = b""
    with suppress(ConnectionResetError):
        while more := peer.recv(65536):
            answer += more
    return answer


@pytest.mark.parametrize("data", DEAD.values(), ids=DEAD.keys())
def test_who_waits_behind_clients_that_left_is_answered_soon(server: Server, data: bytes) -> None:
    httpx.get(f"{server.url}/healthz")
    with stopped(server):
        for _ in range(WAITING):
            leave(server, data)
        peer = connect(server)
        peer.sendall(HEALTH)
        before = cpu_s(server)
    with peer:
        assert whole(peer).startswith(b"HTTP/1.1 200")
    assert (cpu_s(server) - before) / WAITING * BACKLOG < 0.25 * pace(), "a full queue would take longer"


def test_requests_of_clients_that_left_are_not_run_while_many_wait(server: Server, log: Path) -> None:
    before = log.read_text().count("POST /v1/check 4")
    with stopped(server):
        for _ in range(WAITING):
            leave(server, DEAD["requests"])
        peer = connect(server)
        peer.sendall(HEALTH)
    with peer:
        assert whole(peer).startswith(b"HTTP/1.1 200")
    text = log.read_text()
    assert text.count("POST /v1/check 4") - before < WAITING / 3
    assert "Traceback" not in text


def test_a_half_closed_connection_is_answered_where_nobody_waits(server: Server) -> None:
    with connect(server) as peer:
        peer.sendall(HEALTH)
        peer.shutdown(socket.SHUT_WR)
        assert whole(peer).startswith(b"HTTP/1.1 200")


def test_of_many_clients_those_that_stay_are_all_answered(server: Server) -> None:
    with stopped(server):
        peers = []
        for _ in range(150):
            leave(server, DEAD["bytes"])
            peers.append(connect(server))
            peers[-1].sendall(HEALTH)
    for peer in peers:
        with peer:
            assert whole(peer).startswith(b"HTTP/1.1 200")


def test_a_head_without_end_is_refused_before_it_is_parsed(server: Server) -> None:
    with connect(server) as peer:
        send_what_fits(peer, DEAD["headers"], 0.5)
        assert whole(peer).startswith(b"HTTP/1.1 431")


def test_how_many_wait_is_read_from_the_socket() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        queue = AcceptQueue(listener)
        assert not queue.is_long
        peers = [socket.create_connection(listener.getsockname()) for _ in range(63)]
        assert not queue.is_long
        peers.append(socket.create_connection(listener.getsockname()))
        deadline = time.monotonic() + 10
        while not queue.is_long and time.monotonic() < deadline:
            time.sleep(0.01)
        assert queue.is_long
        for peer in peers:
            peer.close()
    assert not queue.is_long, "a closed socket has no queue"
