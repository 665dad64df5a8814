"""Query parameters given twice: refused by every operation, but for those that are lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.api.web.repeated_params import REPEATABLE
from preshuffle.registry import Registry
from support.service.server import REPORT, Client

_METHODS = ("get", "put", "post", "patch", "delete")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    folder: Path = tmp_path_factory.mktemp("store")
    made = Client(create_app(Settings(db=f"sqlite:///{folder}/store.db"), Registry.default()).state.front)
    assert made.put("/v1/deployments/d", json=REPORT).status_code == 201
    return made


def operations(client: Client) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and parameter of every query parameter of the document."""
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in _METHODS:
            for parameter in methods.get(method, {}).get("parameters", ()):
                if parameter["in"] == "query":
                    yield method.upper(), path, parameter


def test_one_rule_holds_for_every_parameter_of_every_operation(client: Client) -> None:
    client.get("/v1/models")  # listings are cached, and the cache knows no parameters
    seen = set()
    for method, path, parameter in operations(client):
        name = parameter["name"]
        seen.add(name)
        answer = client.request(method, f"{path.replace('{name}', 'd')}?{name}=1&{name}=1")
        if parameter["schema"].get("type") == "array":
            assert name in REPEATABLE
            assert "given twice" not in answer.text
        else:
            assert name not in REPEATABLE
            assert answer.status_code == 422, (method, path, name)
            assert {"field": name, "message": "given twice"}.items() <= answer.json()["problems"][0].items()
    assert {"limit", "state", "replica", "label", "model"} <= seen


@pytest.mark.parametrize(
    "path",
    ["/?state=ok&state=stale", "/v1/models?x=1&x=2", "/book/rules?name=a&name=a", "/changes?hours=1&h%6Furs=2"],
)
def test_pages_and_listings_follow_it(client: Client, path: str) -> None:
    client.get("/v1/models")
    answer = client.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == 422
    assert "given twice" in answer.text


def test_lists_and_different_names_are_taken(client: Client) -> None:
    assert client.get("/v1/deployments?label=a&label=b&state=&limit=5").status_code == 200
    assert client.get("/v1/deployments?node=n1,n2").status_code == 200
