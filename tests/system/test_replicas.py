"""Two replicas of the service on one PostgreSQL: each notices what the other changes, and outlives it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy.engine import make_url

from preshuffle.api.routes.kernels import EXAMPLE as TABLE
from support.service.attack import watching_health
from support.service.postgres import new_database
from support.service.proxy import Proxy
from support.service.server import OBSERVATION, REPORT, Server, running_server


@dataclass
class Pair:
    """Two replicas; the second reaches the database through a proxy."""

    first: Server
    second: Server
    proxy: Proxy


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    url = new_database()
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(make_url(url).port or 0))
        through = make_url(url).set(port=proxy.port).render_as_string(hide_password=False)
        with ThreadPoolExecutor(2) as pool:  # both start at once, on a database that is empty
            servers = [pool.submit(stack.enter_context, running_server(one)) for one in (url, through)]
            first, second = (server.result() for server in servers)
        yield Pair(first, second, proxy)


def seconds_until(true: Callable[[], bool], limit: float = 60) -> float:
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < limit, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - started


def names(server: Server) -> list[str]:
    answer = httpx.get(f"{server.url}/v1/deployments", timeout=60)
    assert answer.status_code == 200, answer.text
    return [one["name"] for one in answer.json()["deployments"]]


def test_each_sees_what_the_other_stores_at_once(pair: Pair) -> None:
    assert httpx.put(f"{pair.first.url}/v1/deployments/seen", json=REPORT).status_code == 201
    assert "seen" in names(pair.second)
    tag = httpx.get(f"{pair.second.url}/v1/deployments/seen").headers["etag"]
    later = {**REPORT, "node": "other"}
    headers = {"If-Match": tag}
    assert httpx.put(f"{pair.first.url}/v1/deployments/seen", json=later, headers=headers).status_code == 200
    assert httpx.put(f"{pair.second.url}/v1/deployments/seen", json=REPORT, headers=headers).status_code == 412
    assert httpx.post(f"{pair.second.url}/v1/deployments/seen/heartbeat").status_code == 200
    assert httpx.delete(f"{pair.second.url}/v1/deployments/seen").status_code == 204
    assert httpx.post(f"{pair.first.url}/v1/deployments/seen/heartbeat").status_code == 404


def test_writers_on_both_do_not_lose_each_others_changes(pair: Pair) -> None:
    def put(number: int) -> int:
        server = pair.first if number % 2 else pair.second
        answer = httpx.put(f"{server.url}/v1/deployments/shared?replica={number}", json=REPORT, timeout=60)
        assert answer.status_code in (200, 201), answer.text
        revision: int = answer.json()["revision"]
        return revision

    with ThreadPoolExecutor(4) as pool:
        revisions = list(pool.map(put, range(20)))
    assert len(set(revisions)) == 20
    shown = httpx.get(f"{pair.first.url}/v1/deployments/shared").json()
    assert [one["replica"] for one in shown["replicas"]] == list(range(20))


def test_uploaded_tables_are_noticed_within_a_second(pair: Pair) -> None:
    def tables(server: Server) -> object:
        return httpx.get(f"{server.url}/v1/kernels").json()["tables_digest"]

    assert tables(pair.first) == tables(pair.second) is None
    headers = {"Content-Type": "text/csv"}
    put = httpx.put(f"{pair.first.url}/v1/kernels/tables/0.1.20", content=TABLE, headers=headers, timeout=60)
    assert put.status_code == 201, put.text
    seconds_until(lambda: tables(pair.second) is not None, limit=20)  # a second where nothing else runs
    assert tables(pair.first) == tables(pair.second)


def test_a_cut_connection_is_said_and_mends(pair: Pair) -> None:
    pair.proxy.cut()
    answer = httpx.put(f"{pair.second.url}/v1/deployments/cut", json=REPORT, timeout=60)
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:preshuffle:problem:store-unavailable"
    assert httpx.get(f"{pair.second.url}/readyz", timeout=60).status_code == 503
    assert httpx.get(f"{pair.second.url}/healthz").status_code == 200
    query = "model=openai/gpt-oss-120b&arch=gfx950&activation_dtype=fp4x2"
    assert httpx.get(f"{pair.second.url}/v1/resolve?{query}", timeout=60).status_code == 200
    assert httpx.put(f"{pair.first.url}/v1/deployments/cut", json=REPORT).status_code == 201
    pair.proxy.mend()
    seconds_until(lambda: httpx.get(f"{pair.second.url}/readyz", timeout=60).status_code == 200)
    assert "cut" in names(pair.second)


def test_a_database_that_hangs_is_given_up_and_reads_go_on(pair: Pair) -> None:
    query = "model=openai/gpt-oss-120b&arch=gfx950&activation_dtype=fp4x2"
    pair.proxy.hang()
    try:
        with ThreadPoolExecutor(40) as pool, watching_health(pair.second) as watch:
            started = time.monotonic()
            url = f"{pair.second.url}/v1/deployments/hung"
            beats = [pool.submit(httpx.post, f"{url}/heartbeat", timeout=120) for _ in range(10)]
            writes = [pool.submit(httpx.put, url, json=REPORT, timeout=120) for _ in range(30)]
            for number in range(4):  # none of them is cached
                answer = httpx.get(f"{pair.second.url}/v1/resolve?{query}&tp={2**number}", timeout=60)
                assert answer.status_code == 200
            checked = httpx.post(f"{pair.second.url}/v1/check", json=OBSERVATION, timeout=60)
            assert checked.status_code == 200
            assert not all(future.done() for future in (*beats, *writes)), "reads waited for the database"
            answers = [future.result() for future in (*beats, *writes)]
            took = time.monotonic() - started
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["type"] for answer in answers} == {"urn:preshuffle:problem:store-unavailable"}
        assert watch.failed == 0
        assert took < 60
    finally:
        pair.proxy.mend()
    seconds_until(lambda: httpx.get(f"{pair.second.url}/readyz", timeout=60).status_code == 200)
    assert httpx.put(f"{pair.second.url}/v1/deployments/after-hang", json=REPORT, timeout=60).status_code == 201


def test_one_is_killed_and_the_other_goes_on(pair: Pair, tmp_path: Path) -> None:
    """Last: it takes a replica away."""
    before = names(pair.second)
    pair.first.kill()
    assert names(pair.second) == before
    assert httpx.put(f"{pair.second.url}/v1/deployments/after", json=REPORT).status_code == 201
    assert pair.second.stop() == 0
