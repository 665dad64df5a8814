"""Every error of the service is one problem of one shape."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Route

from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.api.web.problem import KINDS, URN
from preshuffle.registry import Registry
from support.service.server import REPORT, Client

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default())


@pytest.fixture
def client(app: FastAPI) -> Client:
    return Client(app)


def problem(response: httpx.Response, kind: str) -> Any:
    """Check a problem's shape and return it."""
    body = response.json()
    status, title = KINDS[kind]
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, body["status"], body["title"]) == (status, status, title)
    assert body["type"] == URN + kind
    assert body["detail"]
    assert body["instance"] == response.request.url.raw_path.decode().partition("?")[0]
    assert set(body) <= {"type", "title", "status", "detail", "instance", "problems", "nearest", "missing"}
    return body


@pytest.mark.parametrize(
    ("method", "path", "more", "kind"),
    [
        ("GET", "/nowhere", {}, "not-found"),
        ("GET", "/v1/recipes/", {}, "not-found"),
        ("GET", "/static/nothing.css", {}, "not-found"),
        ("GET", "/v1/deployments/a/b", {}, "not-found"),
        ("POST", "/v1/recipes", {}, "method-not-allowed"),
        ("POST", "/v1/deployments/a", {}, "method-not-allowed"),
        ("GET", "/v1/resolve/batch", {}, "method-not-allowed"),
        ("POST", "/static/page.css", {}, "method-not-allowed"),
        ("POST", "/v1/resolve", {"content": b"{", "headers": JSON}, "malformed-json"),
        ("POST", "/v1/resolve", {"content": b"", "headers": JSON}, "malformed-json"),
        ("POST", "/v1/resolve", {"content": b"\xff", "headers": JSON}, "malformed-json"),
        ("POST", "/v1/resolve", {"content": b'{"a": NaN}', "headers": JSON}, "malformed-json"),
        ("POST", "/v1/resolve", {"content": b'{"model": "\\ud800"}', "headers": JSON}, "malformed-json"),
        ("POST", "/v1/resolve", {"content": b"[" * 5000, "headers": JSON}, "json-too-deep"),
        ("POST", "/v1/resolve", {"content": b"{}"}, "unsupported-media-type"),
        (
            "POST",
            "/v1/resolve",
            {"content": b"{}", "headers": {"Content-Type": "text/plain"}},
            "unsupported-media-type",
        ),
        ("POST", "/v1/resolve", {"content": b" " * (1 << 20) + b"{}", "headers": JSON}, "body-too-large"),
        ("POST", "/v1/resolve", {"json": {}}, "invalid-input"),
        ("POST", "/v1/resolve", {"json": []}, "invalid-input"),
        ("POST", "/v1/resolve", {"json": {"model": "m", "arch": "gfx950", "tp": 0}}, "invalid-input"),
        ("POST", "/v1/resolve", {"json": {"model": "m", "arch": "gfx950", "colour": 1}}, "invalid-input"),
        ("POST", "/v1/resolve", {"json": {"model": "m", "arch": "gfx942"}}, "no-recipe"),
        ("GET", "/v1/resolve", {}, "invalid-input"),
        ("GET", "/v1/resolve?model=m&arch=gfx950&aiter=latest", {}, "invalid-input"),
        ("GET", "/v1/resolve?model=m&arch=gfx942", {}, "no-recipe"),
        ("GET", "/v1/deployments?limit=0", {}, "invalid-input"),
        ("GET", "/v1/deployments?colour=red", {}, "invalid-input"),
        ("GET", "/v1/deployments?cursor=!", {}, "invalid-input"),
        ("GET", "/v1/deployments/-", {}, "invalid-input"),
        ("GET", "/v1/deployments/absent", {}, "unknown-deployment"),
        ("GET", "/deployments/absent", {}, "unknown-deployment"),
        ("DELETE", "/v1/deployments/absent", {}, "unknown-deployment"),
        ("PUT", "/v1/deployments/a?replicas=1", {"json": REPORT}, "invalid-input"),
        ("PUT", "/v1/deployments/a", {"json": REPORT, "headers": {"If-Match": '"1"'}}, "precondition-failed"),
    ],
)
def test_every_error_is_a_problem(client: Client, method: str, path: str, more: dict[str, Any], kind: str) -> None:
    problem(client.request(method, path, **more), kind)


def test_wrong_fields_are_named_with_what_is_valid(client: Client) -> None:
    response = client.post("/v1/resolve", json={"model": "m", "arch": "gfx950", "gate_up_order": "UUGG", "x": 1})
    faults = {fault["field"]: fault for fault in problem(response, "invalid-input")["problems"]}
    assert set(faults) == {"gate_up_order", "x"}
    assert faults["gate_up_order"]["valid"] == ["GGUU", "GUGU"]


def test_no_recipe_names_the_nearest_rules_and_what_is_missing(client: Client) -> None:
    body = problem(client.get("/v1/resolve", params={"model": "m", "arch": "gfx942"}), "no-recipe")
    assert {"rule", "recipe", "why_not"} == set(body["nearest"][0])
    assert "hidden_size" in body["missing"]


def test_a_wrong_method_is_told_all_that_are_allowed(client: Client) -> None:
    response = client.request("OPTIONS", "/v1/deployments/a")
    assert set(response.headers["allow"].split(", ")) == {"DELETE", "GET", "PATCH", "PUT"}


def test_a_fault_of_ours_says_nothing_of_its_inside(app: FastAPI, client: Client) -> None:
    async def broken(_request: Any) -> Any:
        raise RuntimeError("secret")

    app.router.routes.insert(0, Route("/broken", broken))
    response = client.get("/broken")
    assert "secret" not in json.dumps(problem(response, "internal"))


def test_a_store_that_is_gone_is_a_problem_and_not_ready(client: Client, tmp_path: Path) -> None:
    assert client.get("/readyz").json()["status"] == "ok"
    for file in tmp_path.iterdir():
        file.unlink()
    body = problem(client.get("/readyz"), "store-unavailable")
    assert "store.db" in body["detail"]
    problem(client.put("/v1/deployments/a", json=REPORT), "store-unavailable")
    assert client.get("/healthz").status_code == 200
