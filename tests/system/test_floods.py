"""Floods of a running service: figures for bench/RESULTS.md."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path

import httpx
import pytest

from support.service.attack import connect, connections, has_ended, peak_mib, send_what_fits, watching_health
from support.service.server import REPORT, Server, running_server

pytestmark = pytest.mark.slow

JSON = b"Host: localhost\r\nContent-Type: application/json\r\n"
SECONDS = 20
MOST_MIB = 512
LONGEST_S = 0.25
"""Longer than a bare server beside it takes, which waits for a core and does nothing else."""
BARE = """
import socket
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
print(listener.getsockname()[1], flush=True)
while True:
    peer, _ = listener.accept()
    with peer:
        peer.recv(4096)
        peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
"""


def pipelined(server: Server) -> int:
    """Send as many requests as the service takes, and never read."""
    requests = b"GET /v1/recipes HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20_000
    with connections(server, 100) as peers, ThreadPoolExecutor(20) as pool:
        taken = sum(pool.map(lambda peer: send_what_fits(peer, requests, 2.0), peers))
        ended = [peer for peer in peers if has_ended(peer)]
    assert len(ended) == 100, "whoever never reads is not waited for"
    return taken // 50


def small_requests(server: Server) -> int:
    """Ask and read in turn, pipelined, on forty connections."""
    return sum(in_parallel(server, 40, lambda peer, _: exchange(peer)))


def exchange(peer: socket.socket) -> int:
    number = 500
    peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * number)
    answers = 0
    while answers < number:
        more = peer.recv(1 << 20)
        if not more:
            break
        answers += more.count(b"HTTP/1.1 ")
    return number


def unfinished_bodies(server: Server) -> int:
    """Send nearly whole bodies of lists of nothing, and stay."""
    body = b'{"observations": [' + b"[]," * 340_000
    head = b"POST /v1/check/batch HTTP/1.1\r\n" + JSON + b"Content-Length: 1040000\r\n\r\n"

    def send(peer: socket.socket, _: int) -> int:
        send_what_fits(peer, head + body, 0.5)
        peer.settimeout(2.0)
        with suppress(OSError):
            peer.recv(4096)
        return 1

    return sum(in_parallel(server, 60, send))


def whole_bodies(server: Server) -> int:
    """Send whole bodies of lists of nothing, and leave before the answer."""
    body = b"[" + b"[]," * 340_000 + b"[]]"
    head = b"POST /v1/check HTTP/1.1\r\n" + JSON + b"Content-Length: %d\r\n\r\n" % len(body)

    def send(peer: socket.socket, _: int) -> int:
        send_what_fits(peer, head + body, 5.0)
        time.sleep(0.1)
        return 1

    return sum(in_parallel(server, 20, send))


def large_plans(server: Server) -> int:
    """Send unfinished plans of thirty megabytes, and tables of sixteen."""
    plan = b"POST /v1/plan HTTP/1.1\r\n" + JSON + b"Content-Length: 33000000\r\n\r\n" + b'{"books": [{"a": "'
    table = b"PUT /v1/kernels/tables/0.1.20 HTTP/1.1\r\n" + JSON + b'Content-Length: 16700000\r\n\r\n{"a.csv": "'
    filler = b"x" * (16 << 20)

    def send(peer: socket.socket, number: int) -> int:
        return send_what_fits(peer, (plan if number % 2 else table) + filler, 0.5) and 1

    return sum(in_parallel(server, 40, send))


def garbage(server: Server) -> int:
    """Send random bytes, heads without an end, and many headers."""
    source = random.Random(1)

    def send(peer: socket.socket, number: int) -> int:
        heads = (
            source.randbytes(4096),
            b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a:b\r\n" * 50_000,
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
            b"POST /v1/check HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        )
        return send_what_fits(peer, heads[number % len(heads)], 0.5) and 1

    return sum(in_parallel(server, 40, send))


def many_connections(server: Server) -> int:
    """Open more connections than there may be."""
    with connections(server, 800) as peers:
        for peer in peers:
            peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: local")
        time.sleep(1)
        with connections(server, 600) as more:
            refused = sum(1 for peer in more if b"503" in first_bytes(peer))
        assert refused > 100
        return len(peers) + len(more)


def first_bytes(peer: socket.socket) -> bytes:
    peer.settimeout(0.05)
    with suppress(OSError):
        return peer.recv(4096)
    return b""


def in_parallel(server: Server, clients: int, work: Callable[[socket.socket, int], int]) -> Iterator[int]:
    """Connect and work again and again, in many threads, for a while."""
    deadline = time.monotonic() + SECONDS

    def client(first: int) -> int:
        done, number = 0, first
        while time.monotonic() < deadline:
            with suppress(OSError), connect(server) as peer:
                done += work(peer, number)
            number += 1
        return done

    with ThreadPoolExecutor(clients) as pool:
        yield from pool.map(client, range(clients))


def cores_of(server: Server) -> tuple[float, float]:
    """Return how long the service's event loop had a core, and waited for one, in seconds."""
    running, waiting, _ = Path(f"/proc/{server.process.pid}/schedstat").read_text().split()
    return int(running) / 1e9, int(waiting) / 1e9


@contextmanager
def bare_server() -> Iterator[Server]:
    """Answer each connection at once, in a process of its own."""
    process = subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Server(process, f"http://127.0.0.1:{process.stdout.readline().strip()}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def with_low_priority(flood: Callable[[Server], int], server: Server) -> int:
    """Flood from a process that runs only where a core is free, and return the number of requests."""
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        os.nice(19)
        sender.send(flood(server))

    process = context.Process(target=run)
    process.start()
    sender.close()
    try:
        return int(receiver.recv())
    finally:
        process.join()


FLOODS = [
    pipelined, small_requests, unfinished_bodies, whole_bodies, large_plans, garbage, many_connections
]  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_a_flood(flood: Callable[[Server], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    with running_server(tmp_path / "store.db", stderr=log) as server:
        assert httpx.put(f"{server.url}/v1/deployments/d", json=REPORT).status_code == 201
        allowed = 0 if flood is not many_connections else None
        with bare_server() as bare, watching_health(bare) as machine, watching_health(server) as watch:
            requests = with_low_priority(flood, server)
        peak, on_core_s, waited_s = peak_mib(server), *cores_of(server)
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert httpx.put(f"{server.url}/v1/deployments/d", json={**REPORT, "node": "b"}).status_code == 200
    with capsys.disabled():
        figures = f"{requests} requests, /healthz {watch.asked} times, longest {watch.longest_s * 1000:.0f} ms"
        machine_ms, load = machine.longest_s * 1000, os.getloadavg()[0]
        print(f"\n{flood.__name__}: {figures}, {watch.failed} failed, peak {peak:.0f} MiB")
        print(f"the service's event loop had a core for {on_core_s:.1f} s and waited {waited_s:.1f} s for one")
        print(f"a bare server beside it: longest {machine_ms:.0f} ms of {machine.asked}; load {load:.1f}")
    assert peak < MOST_MIB
    assert "Traceback" not in log.read_text()
    assert allowed is None or watch.failed == allowed
    assert watch.longest_s <= LONGEST_S + machine.longest_s
