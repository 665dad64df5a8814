"""Attacks on a running service at the level of sockets: it answers, stays small and writes no traceback."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.service.attack import ask, connect, connections, peak_mib, send_what_fits, status_of, watching_health
from support.service.server import REPORT, Server, running_server
from support.service.tokens import Written, write_tokens

MOST_MIB = 512
HEARTBEAT = "/v1/deployments/d/heartbeat"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "stderr"


@pytest.fixture(scope="module")
def server(log: Path) -> Iterator[Server]:
    with running_server(log.parent / "store.db", stderr=log) as running:
        assert httpx.put(f"{running.url}/v1/deployments/d", json=REPORT).status_code == 201
        yield running


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (["localhost"], 200),
        (["LOCALHOST:1"], 200),
        (["127.0.0.1:8080"], 200),
        (["127.200.3.4"], 200),
        (["[::1]"], 200),
        (["[::1]:99"], 200),
        (["evil.example"], 421),
        (["localhost.evil.example"], 421),
        (["127.0.0.1.evil.example:8080"], 421),
        (["10.0.0.1"], 421),
        (["[::2]:80"], 421),
        (["128.0.0.1"], 421),
        ([], 400),
        (["localhost", "localhost"], 400),
        (["localhost", "evil.example"], 400),
        ([""], 400),
        (["localhost/x"], 400),
        (["a@localhost"], 400),
        (["localhost:x"], 400),
    ],
)
def test_only_loopback_names_are_answered_without_tokens(server: Server, hosts: list[str], status: int) -> None:
    for path in ("/healthz", "/v1/registry", f"{HEARTBEAT}?none"):
        answer = ask(server, f"GET {path} HTTP/1.1", *(f"Host: {host}" for host in hosts))
        assert status_of(answer) == (405 if status == 200 and path.startswith(HEARTBEAT) else status), answer


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "http://127.0.0.1:{port}"}, True),
        ({"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://127.0.0.1:1"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "file://"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "cross-site"}, False),
    ],
)
def test_what_another_sites_page_sends_changes_nothing(server: Server, headers: dict[str, str], allowed: bool) -> None:
    port = server.url.rsplit(":", 1)[1]
    headers = {name: value.replace("{port}", port) for name, value in headers.items()}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        answers = [
            client.post(HEARTBEAT),
            client.put("/v1/deployments/d", json=REPORT),
            client.put("/v1/kernels/tables/0.1.20", content=b"", headers={"Content-Type": "text/csv"}),
            client.delete("/v1/deployments/none"),
            client.post("/plan", data={"aiter": ""}),
            client.post("/v1/plan", json={}),
        ]
        assert client.get("/v1/registry").status_code == 200
    assert [answer.status_code == 403 for answer in answers] == [not allowed] * len(answers)
    kinds = {answer.json()["type"].rpartition(":")[2] for answer in answers if answer.status_code == 403}
    assert kinds <= {"cross-site"}


def test_with_tokens_any_host_is_answered_but_no_other_site(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.yaml")
    with running_server(tmp_path / "store.db", tokens=str(tokens.file)) as server:
        headers = {"Host": "registry.example:8443", "Authorization": f"Bearer {tokens.admin}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
            assert client.get("/v1/registry").status_code == 200
            for origin, status in (("https://registry.example:8443", 201), ("https://evil.example", 403)):
                answer = client.put("/v1/deployments/d", json=REPORT, headers={"Origin": origin})
                assert answer.status_code == status
        assert status_of(ask(server, "GET /healthz HTTP/1.1", "Host: a", "Host: b")) == 400
        assert status_of(ask(server, "GET /healthz HTTP/1.1")) == 400
        assert status_of(ask(server, "GET /healthz HTTP/1.0")) == 200  # which has no Host
        plans_need_an_operator(server, tokens)


def plans_need_an_operator(server: Server, tokens: Written) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/v1/plan": {"json": {"aiter": "0.1.20"}},
        "/plan": {"data": {"aiter": "0.1.20"}},
    }
    for path, more in bodies.items():
        statuses = []
        for token in (None, "psh_wrong", tokens.report, tokens.admin):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            statuses.append(httpx.post(f"{server.url}{path}", headers=headers, timeout=120, **more).status_code)
        assert statuses == [401, 401, 403, 200]


def test_a_long_path_counts_and_is_cut_in_the_log(server: Server, log: Path) -> None:
    assert status_of(ask(server, f"GET /{'a' * 40_000} HTTP/1.1", "Host: localhost")) == 431
    assert status_of(ask(server, f"PUT /{'b' * 30_000} HTTP/1.1", "Host: localhost", "Content-Length: 0")) == 404
    assert status_of(ask(server, "PUT /a%0A2026-01-01%20ERROR HTTP/1.1", "Host: localhost", "Content-Length: 0")) == 404
    assert status_of(ask(server, "GET / HTTP/1.1", "Host: localhost", *["A: b"] * 1000)) == 431
    text = log.read_text()
    assert "b" * 300 not in text
    assert "(30001 characters)" in text
    assert "\n2026-01-01 ERROR" not in text


def test_a_thousand_requests_at_once_are_answered_in_turn(server: Server) -> None:
    number = 20_000
    with connect(server) as peer, watching_health(server) as watch:
        peer.settimeout(0.0)
        left, answers = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * number, 0
        deadline = time.monotonic() + 60
        while answers < number and time.monotonic() < deadline:
            try:
                left = left[peer.send(left[:262_144]) :] if left else left
            except BlockingIOError:
                pass
            try:
                answers += peer.recv(1 << 20).count(b"HTTP/1.1 200")
            except BlockingIOError:
                time.sleep(0.001)
    assert answers >= number * 0.999  # a status line may be cut in two
    assert watch.failed == 0
    assert peak_mib(server) < MOST_MIB


def test_forty_unfinished_plans_take_little_memory_and_one_queue(server: Server) -> None:
    head = b"POST /v1/plan HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = head + b"Content-Length: 33000000\r\n\r\n" + b'{"books": [{"a.yaml": "' + b"x" * (30 << 20)
    with connections(server, 40) as peers, watching_health(server) as watch:
        for peer in peers:
            send_what_fits(peer, body, 0.1)
        refused = answers_of(peers, 35)
        assert len(refused) == 35
        assert all(b"HTTP/1.1 503" in answer and b"retry-after: " in answer.lower() for answer in refused)
    assert watch.failed == 0
    assert peak_mib(server) < MOST_MIB
    soon = time.monotonic() + 60
    while httpx.post(f"{server.url}/v1/plan", json={"aiter": "0.1.20"}, timeout=120).status_code != 200:
        assert time.monotonic() < soon, "whoever left is still waited for"


def answers_of(peers: Sequence[socket.socket], least: int) -> list[bytes]:
    """Return what has come, once so many have an answer and no other comes for a second; wait a minute at most."""
    waiting, answers = list(peers), list[bytes]()
    deadline = time.monotonic() + 60
    while waiting and time.monotonic() < deadline:
        ready, _, _ = select.select(waiting, [], [], 1.0)
        if not ready and len(answers) >= least:
            break
        for peer in ready:
            waiting.remove(peer)
            with suppress(OSError):
                answers.append(peer.recv(65536))
    return [answer for answer in answers if answer]


def test_bodies_share_one_budget(server: Server) -> None:
    """Lists of nothing are twenty times as large once they are parsed."""
    head = b"POST /v1/check/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = b'{"observations": [' + b"[]," * 340_000
    with connections(server, 60) as peers, watching_health(server) as watch:
        for peer in peers:
            send_what_fits(peer, head + b"Content-Length: 1040000\r\n\r\n" + body, 0.2)
        answers = answers_of(peers, 1)
        assert any(b"urn:preshuffle:problem:busy" in answer for answer in answers)
        assert len(answers) < len(peers)
        small = httpx.put(f"{server.url}/v1/deployments/small", json=REPORT, timeout=60)
        assert small.status_code in (200, 201), "what is large gives way to what is small"
    assert watch.failed == 0
    assert peak_mib(server) < MOST_MIB


def test_nothing_of_this_left_a_traceback(server: Server, log: Path) -> None:
    """Last."""
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    text = log.read_text()
    assert "Traceback" not in text
    assert " ERROR preshuffle" not in text
    assert " ERROR uvicorn" not in text
