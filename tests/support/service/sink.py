"""An HTTP server that keeps what it is sent, and answers as a test wants."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Sink:
    """Requests so far; ``answers`` are the statuses of the next ones, then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    bodies: list[Any] = field(default_factory=list)
    received: list[dict[str, str]] = field(default_factory=list)

    def wait_for(self, number: int, seconds: float = 60) -> list[Any]:
        """Return the bodies once there are so many."""
        deadline = time.monotonic() + seconds
        while len(self.bodies) < number:
            assert time.monotonic() < deadline, f"{len(self.bodies)} of {number} requests came"
            time.sleep(0.02)
        return self.bodies


@contextmanager
def running_sink() -> Iterator[Sink]:
    """Run one on a free port."""
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sink.received.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(sink.answers.pop(0) if sink.answers else 200)
            for name, value in {**sink.headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()
            sink.bodies.append(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sink.url = f"http://127.0.0.1:{server.server_address[1]}/hook/s3cret"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        server.server_close()
