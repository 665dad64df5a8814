"""A service on PostgreSQL whose server hangs, while clients that never read keep it busy."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from sqlalchemy import make_url

from preshuffle.api.store.postgres import ANSWER_S
from support.service.attack import connections, has_ended, peak_mib, send_what_fits, watching_health
from support.service.postgres import new_database
from support.service.proxy import Proxy
from support.service.server import REPORT, Server, running_server

MOST_MIB = 512
NEVER_READING = 60
WRITERS = 12
ANSWERED_S = 45.0
"""Seconds until a write is refused: 10 for a connection's answer, again for the next, and a busy machine."""
READS = (
    "/healthz",
    "/v1/resolve?model=openai/gpt-oss-120b&arch=gfx950&activation_dtype=fp4x2",
    "/v1/recipes",
    "/v1/models",
)
UNREAD = b"GET /v1/recipes HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5_000
WRITE = (
    b"POST /v1/deployments/d/heartbeat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    b"GET /v1/deployments HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
)


def test_a_server_that_hangs_stops_writes_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    url = make_url(new_database())
    with Proxy(url.port or 0) as proxy:
        through = url.set(port=proxy.port).render_as_string(hide_password=False)
        with running_server(through, stderr=log) as server:
            assert report(server, "d") == 201
            with connections(server, NEVER_READING) as peers, watching_health(server) as watch:
                with ThreadPoolExecutor(20) as pool:
                    list(pool.map(lambda peer: send_what_fits(peer, UNREAD, 0.5), peers[: NEVER_READING // 2]))
                    proxy.hang()
                    list(pool.map(lambda peer: send_what_fits(peer, WRITE, 0.5), peers[NEVER_READING // 2 :]))
                with ThreadPoolExecutor(WRITERS) as pool:
                    refused = pool.map(lambda number: timed_report(server, f"w{number}"), range(WRITERS))
                    for path in READS:
                        assert httpx.get(f"{server.url}{path}", timeout=30).status_code == 200, path
                    for status, seconds in refused:
                        assert status == 503
                        assert seconds < ANSWERED_S
                unread = peers[: NEVER_READING // 2]  # the others' answers are small, and each waits for the database
                assert all(has_ended(peer) for peer in unread), "whoever never reads is not waited for"
            assert watch.failed == 0
            assert watch.longest_s < ANSWER_S, "reads do not wait for the database"
            proxy.mend()
            deadline = time.monotonic() + 60
            while report(server, "after") not in (200, 201):
                assert time.monotonic() < deadline, "the service writes again without a restart"
                time.sleep(0.5)
            stored = {one["name"] for one in httpx.get(f"{server.url}/v1/deployments").json()["deployments"]}
            assert {"d", "after"} <= stored <= {"d", "after", *(f"w{number}" for number in range(WRITERS))}
            assert peak_mib(server) < MOST_MIB
            assert server.stop() == 0
    assert "Traceback" not in log.read_text()


def test_a_service_stops_while_its_database_hangs(tmp_path: Path) -> None:
    url = make_url(new_database())
    with Proxy(url.port or 0) as proxy:
        through = url.set(port=proxy.port).render_as_string(hide_password=False)
        with running_server(through, stderr=tmp_path / "log") as server:
            assert report(server, "d") == 201
            proxy.hang()
            with connections(server, 10) as peers:
                for peer in peers:
                    send_what_fits(peer, WRITE, 0.2)
                started = time.monotonic()
                server.stop()
                assert time.monotonic() - started < ANSWERED_S
    assert "Traceback" not in (tmp_path / "log").read_text()


def report(server: Server, name: str) -> int:
    return httpx.put(f"{server.url}/v1/deployments/{name}", json=REPORT, timeout=60).status_code


def timed_report(server: Server, name: str) -> tuple[int, float]:
    started = time.monotonic()
    return report(server, name), time.monotonic() - started
