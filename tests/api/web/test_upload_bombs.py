"""Tables, plans and bodies of wrong kinds are answered or refused: nothing breaks, and what is small takes no time."""

from __future__ import annotations

import json
import time
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.registry import Registry
from support.bombs.bodies import LIMIT
from support.bombs.uploads import SAMPLES, plans, tables, wrong_bodies
from support.computing import computed_within
from support.service.server import REPORT, Client

MOST_S = 1.0
"""Seconds of computing, for bodies of at most 1 MiB that are neither tables nor plans."""
PER_MIB_S = 3.0
"""The same for each MiB of tables."""
PLAN_S = 60.0
"""Seconds until a plan of 1 MiB is there, on a busy machine; most of it is the child's start."""
LONGEST = 1 << 20
"""Bytes of an answer."""
JSON = {"Content-Type": "application/json"}
EVERY = pytest.param(1, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    folder: Path = tmp_path_factory.mktemp("bombs")
    client = Client(create_app(Settings(db=f"sqlite:///{folder}/store.db"), Registry.load()).state.front)
    assert client.put("/v1/deployments/d", json=REPORT).status_code == 201
    return client


def send(client: Client, path: str, name: str, body: bytes, most_s: float, kind: str = "application/json") -> None:
    """Send a body, within a bound of computing."""
    method = "PUT" if path.startswith(("/v1/kernels", "/v1/conformance")) or path.endswith("mutant") else "POST"
    request = partial(client.request, method, path, content=body, headers={"Content-Type": kind})
    response = computed_within(most_s, request, (path, name))
    assert response.status_code < 500, (path, name, response.text[:300])
    assert len(response.content) < LONGEST, (path, name)
    if response.status_code >= 400:
        problem = response.json()
        assert problem["type"].startswith("urn:preshuffle:problem:"), (path, name)
        assert problem.get("detail"), (path, name)


@pytest.mark.parametrize("step", [7, EVERY])
@pytest.mark.parametrize("path", SAMPLES)
def test_a_value_of_a_wrong_kind_is_answered_at_once(client: Client, path: str, step: int) -> None:
    good = client.request("POST", path, json=SAMPLES[path])
    assert good.status_code < 500
    for name, body in islice(wrong_bodies(path), 0, None, step):
        assert len(body) <= LIMIT
        send(client, path, name, body, MOST_S)


@pytest.mark.parametrize("step", [4, EVERY])
def test_costly_tables_are_taken_or_refused(client: Client, step: int) -> None:
    for number, (name, body, kind) in enumerate(islice(tables(), 0, None, step)):
        size = max(1.0, len(body) / LIMIT)
        send(client, f"/v1/kernels/tables/0.0.{number + step * 1000}", name, body, PER_MIB_S * size, kind)


@pytest.mark.parametrize("step", [6, EVERY])
def test_costly_plans_are_made_or_refused(client: Client, step: int) -> None:
    """The service itself computes little: the book is loaded in a child process, of bounded memory and time."""
    for name, body in islice(plans(), 0, None, step):
        started = time.monotonic()
        send(client, "/v1/plan", name, body, MOST_S)
        assert time.monotonic() - started < PLAN_S, name


@pytest.mark.parametrize("path", ["/v1/plan", *SAMPLES])
def test_a_body_of_another_kind_is_refused(client: Client, path: str) -> None:
    for body in (b"", b"null", b"[]", b"0", b'""', json.dumps(REPORT).encode() + b"x", b"\xff", b"{", b"{'a':1}"):
        send(client, path, repr(body), body, MOST_S)
