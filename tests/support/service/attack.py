"""Hostile clients of a running service, and what they do to its memory and its other clients."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from support.service.server import Server

_WATCH = """
import select, socket, sys, time
host, port = sys.argv[1], int(sys.argv[2])
longest, number, failed = 0.0, 0, 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.02)[0]:
    started = time.monotonic()
    try:
        with socket.create_connection((host, port), timeout=30) as peer:
            peer.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
            answer = b""
            while more := peer.recv(65536):
                answer += more
        failed += not answer.startswith(b"HTTP/1.1 200")
    except OSError:
        failed += 1
    longest, number = max(longest, time.monotonic() - started), number + 1
print(longest, number, failed, flush=True)
"""


@dataclass
class Watch:
    """What somebody saw who asked for ``/healthz`` all the time.

    Attributes:
        longest_s: the longest wait.
        asked: how often.
        failed: how often there was no 200.
    """

    longest_s: float = 0.0
    asked: int = 0
    failed: int = 0


@contextmanager
def watching_health(server: Server) -> Iterator[Watch]:
    """Ask for ``/healthz`` from another process while the block runs; the result is complete after it."""
    watch = Watch()
    command = [sys.executable, "-c", _WATCH, "127.0.0.1", str(port_of(server))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield watch
        finally:
            process.stdin.close()
            longest, asked, failed = process.stdout.readline().split()
            watch.longest_s, watch.asked, watch.failed = float(longest), int(asked), int(failed)


def port_of(server: Server) -> int:
    """Return the port that a service listens on."""
    return urlsplit(server.url).port or 0


def peak_mib(server: Server) -> float:
    """Return the most memory that the service's process has had, in MiB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def connect(server: Server) -> socket.socket:
    """Return a connection to the service."""
    peer = socket.create_connection(("127.0.0.1", port_of(server)))
    peer.settimeout(60)
    return peer


def ask(server: Server, *lines: str, body: bytes = b"") -> bytes:
    """Send a request, line by line as given, and return the whole answer."""
    with connect(server) as peer:
        peer.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body)
        answer = b""
        with suppress(ConnectionResetError):
            while more := peer.recv(65536):
                answer += more
    return answer


def status_of(answer: bytes) -> int:
    """Return the status of a response."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


@contextmanager
def connections(server: Server, number: int) -> Iterator[Sequence[socket.socket]]:
    """Open many connections, and close them at the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(server)) for _ in range(number)]


def send_what_fits(peer: socket.socket, data: bytes, seconds: float = 1.0) -> int:
    """Send until the service takes no more for a while, or ends the connection; return how much it took."""
    sent = 0
    peer.settimeout(seconds)
    with suppress(OSError):
        while sent < len(data):
            sent += peer.send(data[sent : sent + 65536])
    return sent


def has_ended(peer: socket.socket) -> bool:
    """Whether the service ends a connection within a minute, seen without reading."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            peer.settimeout(0.2)
            peer.send(b"x")
        except TimeoutError:
            time.sleep(0.5)
        except OSError:
            return True
    return False
