"""Cached responses over a real socket, as HTTP/1.1 clients may request them."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from support.service.server import Server, running_server
from support.service.tokens import write_tokens

PATH = "/v1/resolve?model=openai/gpt-oss-120b&arch=gfx950&activation_dtype=fp4x2&tp=2"
SLOW = "/v1/layouts"
FAR_MORE = 3000  # than Python may call deep


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("kept") / "store.db") as running:
        assert httpx.get(running.url + PATH).status_code == 200
        yield running


def request(path: str, *headers: str, version: str = "1.1", body: str = "") -> bytes:
    lines = [
        f"GET {path} HTTP/{version}",
        "Host: localhost",
        *headers,
        *([f"Content-Length: {len(body)}"] if body else []),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


class Wire:
    """One connection, and the responses that come back on it."""

    def __init__(self, server: Server) -> None:
        url = httpx.URL(server.url)
        self.socket = socket.create_connection((url.host, url.port or 80), timeout=30)
        self.file = self.socket.makefile("rb")

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def response(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while (line := self.file.readline().decode().strip()) != "":
            name, _, value = line.partition(": ")
            assert name not in headers
            headers[name] = value
        return status, headers, self.file.read(int(headers.get("content-length", 0)))

    def at_end(self) -> bool:
        return self.file.read(1) == b""


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    with closing(Wire(server)) as opened:
        yield opened


def test_it_is_the_answer_that_the_routes_give(server: Server, wire: Wire) -> None:
    first = httpx.get(server.url + PATH.replace("tp=2", "tp=4"), headers={"Accept-Encoding": "identity"})
    wire.socket.sendall(request(PATH.replace("tp=2", "tp=4")))
    status, headers, body = wire.response()
    assert (status, body) == (200, first.content)
    told = {"content-type", "content-length", "etag", "cache-control", "x-content-type-options"}
    assert {name: headers[name] for name in told} == {name: first.headers[name] for name in told}
    assert "date" in headers


def test_what_the_client_has_already_is_not_sent_again(wire: Wire) -> None:
    wire.socket.sendall(request(PATH))
    etag = wire.response()[1]["etag"]
    wire.socket.sendall(request(PATH, f"If-None-Match: {etag}"))
    status, headers, _ = wire.response()
    assert (status, headers["etag"]) == (304, etag)
    wire.socket.sendall(request(PATH, 'If-None-Match: "other"', "X-Request-ID: mine"))
    status, headers, _ = wire.response()
    assert (status, headers["x-request-id"]) == (200, "mine")


@pytest.mark.parametrize(("version", "header"), [("1.1", "Connection: close"), ("1.0", "Accept: */*")])
def test_the_connection_ends_where_the_client_says_so(wire: Wire, version: str, header: str) -> None:
    wire.socket.sendall(request(PATH, header, version=version))
    status, headers, _ = wire.response()
    assert (status, headers["connection"]) == (200, "close")
    assert wire.at_end()


def test_answers_keep_the_order_of_the_requests(wire: Wire) -> None:
    wire.socket.sendall(
        request(SLOW) + request(PATH) * 2 + request("/no/such") + request(PATH, body="{}") + request(SLOW)
    )
    assert [wire.response()[0] for _ in range(6)] == [200, 200, 200, 404, 200, 200]


def test_many_requests_at_once_are_all_answered(wire: Wire) -> None:
    small = request(PATH, "If-None-Match: *")
    wire.socket.sendall(request(SLOW) + small * FAR_MORE)
    assert wire.response()[0] == 200
    assert {wire.response()[0] for _ in range(FAR_MORE)} == {304}


def test_a_client_that_does_not_read_holds_nobody_else(server: Server, wire: Wire) -> None:
    wire.socket.settimeout(1)
    with pytest.raises(TimeoutError):  # nothing more fits anywhere: the service has stopped reading as well
        wire.socket.sendall(request(PATH) * 300_000)
    assert httpx.get(server.url + PATH).status_code == 200


def test_they_are_counted(server: Server, wire: Wire) -> None:
    def count() -> float:
        text = httpx.get(f"{server.url}/metrics").text
        series = r'preshuffle_http_requests_total\{method="GET",route="/v1/resolve",status="200"\} (\S+)'
        found = re.search(series, text)
        assert found
        return float(found[1])

    before = count()
    wire.socket.sendall(request(PATH) * 7)
    assert [wire.response()[0] for _ in range(7)] == [200] * 7
    assert count() - before == 7


def test_a_cached_response_needs_the_token_too(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.yaml")
    with running_server(tmp_path / "store.db", "--tokens", str(tokens.file), "--reads", "closed") as server:
        known = {"Authorization": f"Bearer {tokens.report}"}
        assert httpx.get(server.url + PATH, headers=known).status_code == 200
        assert httpx.get(server.url + PATH, headers=known).status_code == 200
        assert httpx.get(server.url + PATH).status_code == 401
        assert httpx.get(server.url + PATH, headers={"Authorization": "Bearer other"}).status_code == 401
