"""A reverse proxy that offers a service below a path, as an Ingress does, and nothing beside it."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

OUTSIDE = 418
"""Status of what is not below the path: no service says it."""
_PER_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "date", "server"})


@contextmanager
def prefix_proxy(target: str, prefix: str, strips: bool) -> Iterator[str]:
    """Forward what is below a path to a service; yield the path's URL.

    Args:
        target: URL of the service; only its host and port count.
        prefix: the path.
        strips: whether the proxy cuts it off.
    """
    authority = urlsplit(target).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            path = urlsplit(self.path).path
            if path != prefix and not path.startswith(f"{prefix}/"):
                self.send_response(OUTSIDE)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            rest = self.path.removeprefix(prefix)
            asked = (rest if rest.startswith("/") else f"/{rest}") if strips else self.path
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            upstream = http.client.HTTPConnection(authority)
            try:
                upstream.request(self.command, asked, body or None, dict(self.headers))
                answer = upstream.getresponse()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _PER_HOP:
                        self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                while part := answer.read1(65536):
                    self.wfile.write(part)
                    self.wfile.flush()
            except ConnectionError:
                pass  # the browser has left the page
            finally:
                self.close_connection = True
                upstream.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = forward

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    finally:
        server.shutdown()
        server.server_close()
