"""Bodies that were made to be costly are answered or refused within a second of computing."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.registry import Registry
from support.bombs.bodies import LIMIT, PATHS, bodies
from support.bombs.heads import heads
from support.computing import computed_within
from support.service.server import Client

MOST_S = 1.0
"""Seconds of computing."""
MOST_ANSWER = 1 << 20
QUICK = ("deep lists", "many keys", "one key often", "a long number", "many wrong tokens", "many groups")
HEADERS = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    folder: Path = tmp_path_factory.mktemp("bombs")
    return Client(create_app(Settings(db=f"sqlite:///{folder}/store.db"), Registry.load()).state.front)


def send(client: Client, path: str, name: str, body: bytes) -> None:
    assert len(body) <= LIMIT + 1
    method = "PUT" if path.startswith("/v1/deployments") else "POST"
    answered(client, method, path, name, content=body, headers=HEADERS)


def answered(client: Client, method: str, path: str, name: str, **more: Any) -> httpx.Response:
    """Send a request, within a second of computing."""
    response = computed_within(MOST_S, partial(client.request, method, path, **more), (path[:100], name))
    unfit = response.status_code == 503 and path.endswith("/health")  # a deployment that may not serve
    assert response.status_code < 500 or unfit, (path[:100], name)
    return response


@pytest.mark.parametrize("path", PATHS)
def test_a_costly_body_is_answered_at_once(client: Client, path: str) -> None:
    for name, body in bodies(PATHS[path]):
        if name in QUICK or name.startswith("kernel of 5000"):
            send(client, path, name, body)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_every_costly_body_is_answered_at_once(client: Client, path: str) -> None:
    for name, body in bodies(PATHS[path]):
        send(client, path, name, body)


@pytest.mark.parametrize("step", [40, pytest.param(1, marks=pytest.mark.slow)])
def test_costly_heads_are_answered_at_once(client: Client, step: int) -> None:
    schema = client.request("GET", "/openapi.json").json()
    for name, path, headers in islice(heads(schema), 0, None, step):
        response = answered(client, "GET", path, name, headers=headers)
        assert response.status_code < 400 or len(response.content) < MOST_ANSWER, name


@pytest.mark.slow
def test_every_view_of_a_costly_report_is_made_at_once(client: Client) -> None:
    for number, (name, body) in enumerate(bodies("report")):
        if client.request("PUT", f"/v1/deployments/d{number}", content=body, headers=HEADERS).status_code < 300:
            for path in ("/v1/deployments/{}", "/v1/deployments/{}/health", "/deployments/{}"):
                answered(client, "GET", path.format(f"d{number}"), name)
    for path in ("/", "/v1/deployments", "/changes", "/v1/history"):
        answered(client, "GET", path, "all of them")


@pytest.mark.parametrize("path", PATHS)
def test_a_key_given_twice_is_refused(client: Client, path: str) -> None:
    method = "PUT" if path.startswith("/v1/deployments") else "POST"
    response = client.request(method, path, content=b'{"model":"a","x":{"k":1,"k":2}}', headers=HEADERS)
    assert response.status_code == 422
    assert "occurs twice" in response.text


def test_more_values_than_any_input_has_are_refused_before_they_are_made(client: Client) -> None:
    lists = b"[" + b"[]," * 200_000 + b"[]]"
    assert client.request("POST", "/v1/check", content=lists, headers=HEADERS).status_code == 413
    text = b'{"model":"' + b"[]," * 200_000 + b'\\""}'
    assert client.request("POST", "/v1/check", content=text, headers=HEADERS).status_code == 422


def test_a_batch_that_takes_too_long_says_which_inputs_to_send_again(client: Client) -> None:
    queries = [
        {"model": "openai/gpt-oss-120b", "arch": "gfx950", "hidden_size": 1024 + 32 * index} for index in range(1000)
    ]
    results = client.post("/v1/resolve/batch", json={"queries": queries}).json()["results"]
    assert len(results) == 1000
    assert "budget-exhausted" in results[-1]["problem"]["type"]
    assert "send this one in another batch" in results[-1]["problem"]["detail"]


def test_a_batch_has_a_thousand_inputs_at_most(client: Client) -> None:
    assert client.post("/v1/resolve/batch", json={"queries": [{}] * 1001}).status_code == 422
