"""The page: what it shows, that it asks for nothing from elsewhere, and that nothing told becomes markup."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.registry import Query, Registry
from support.server import OBSERVATION, REPORT, Client

HOSTILE = "<script>alert(1)</script>'\"&"


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default()))


class Markup(HTMLParser):
    """Collects what a page loads and links, its ids, and whether its elements are closed."""

    VOID = frozenset({"meta", "link", "img", "br", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.inline: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.inline += [name for name in values if name == "style" or name.startswith("on")]
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        elif tag != "svg":
            self.loads += [values[name] for name in ("src", "href") if name in values]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200, response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]
    markup = Markup(response.text)
    assert markup.open == []
    assert markup.inline == []
    assert markup.loads
    assert all(target.startswith("/static/") for target in markup.loads)
    assert len(markup.ids) == len(set(markup.ids))
    for target in markup.links:
        if target.startswith("#"):
            assert target[1:] in markup.ids
        elif target.startswith("/") and "{" not in target:
            assert client.get(target).status_code == 200, target
        else:
            assert target.startswith("https://")
    for target in set(markup.loads):
        assert client.get(target).status_code == 200, target
    return response.text


def put(client: Client, name: str, **observation: Any) -> None:
    body = {"groups": [{"layers": "0-35", "observation": {**OBSERVATION, **observation}}]}
    assert client.put(f"/v1/deployments/{name}", json=body).status_code in (200, 201)


def test_without_deployments_it_tells_how_to_put_one(client: Client) -> None:
    text = page(client, "/")
    assert "No deployment has reported yet" in text
    assert "curl -X PUT" in text
    assert "http://service/v1/deployments/my-deployment" in text


def test_the_list_shows_what_is_decided_and_what_was_applied(client: Client) -> None:
    put(client, "right")
    put(client, "wrong", applied={"tensors": {"w13_weight": {"layout": "gui16"}}})
    put(client, "silent", applied={})
    put(client, "odd", applied={"tensors": {"w13_weight": {"layout": "no-such"}}})
    put(client, "nobody", query={"model": "m", "arch": "gfx942"})
    rows = dict(re.findall(r'<tbody>.*?href="/deployments/(\w+)"(.*?)</tbody>', page(client, "/"), re.DOTALL))
    assert {name: re.findall(r'class="state \w+">([^<]+)<', row) for name, row in rows.items()} == {
        "right": ["same bytes"],
        "wrong": ["other bytes"],
        "silent": ["unknown"],
        "odd": ["not a layout of this registry"],
        "nobody": ["no recipe", "nothing decided"],
    }
    assert "mxfp4.sep16" in rows["right"]


def test_the_list_comes_in_pages(client: Client) -> None:
    for index in range(5):
        put(client, f"d{index}")
    first = page(client, "/?limit=3")
    (cursor,) = re.findall(r'href="/\?cursor=([^"]+)"', first)
    second = page(client, f"/?cursor={cursor}")
    assert re.findall(r"/deployments/(d\d)", first + second) == ["d0", "d1", "d2", "d3", "d4"]
    assert client.get("/?cursor=!").status_code == 422


def test_a_deployment_shows_decision_reason_alternatives_kernels_and_pictures(client: Client) -> None:
    client.put("/v1/deployments/prod", json=REPORT)
    decision = Registry.default().resolve(Query.parse(OBSERVATION["query"]))
    text = page(client, "/deployments/prod")
    for shown in (decision.recipe, decision.rule, decision.alternatives[0].recipe, decision.decision_digest):
        assert shown in text
    assert decision.reason in text
    assert decision.alternatives[0].why_not in text
    for role, tensor in decision.tensors.items():
        assert role in text
        assert " × ".join(map(str, tensor.physical_shape)) in text
    for bucket in decision.kernels:
        assert bucket.stage1 is not None
        assert (bucket.stage1.kernel or bucket.stage1.func) in text
    assert re.findall(r'<details class="drawing" id="([^"]+)"', text) == [f"s0-{role}" for role in decision.tensors]
    assert "expert 0, gate row 3, bytes 16–31 lies at byte 304" in text


def test_other_bytes_are_drawn_beside_those_decided(client: Client) -> None:
    put(client, "prod", applied={"tensors": {"w13_weight": {"layout": "gui16", "physical_shape": [128, 64, 3072]}}})
    text = page(client, "/deployments/prod")
    assert 'id="s0-w13_weight-applied"' in text
    assert "Gate and up alternate every 24\u202f576 bytes (16 rows)" in text
    assert "shape 128 × 64 × 3072" in text


def test_groups_that_are_alike_are_shown_and_drawn_once(client: Client) -> None:
    for replica in range(3):
        client.put(f"/v1/deployments/prod?replica={replica}", json=REPORT)
    groups = [{"layers": layers, "observation": OBSERVATION} for layers in ("0-2", "3-35")]
    client.put("/v1/deployments/prod?replica=3", json={"groups": groups})
    text = page(client, "/deployments/prod")
    assert re.findall(r"<h2[^>]*>(Layers [^<]+?)\s*<", text) == ["Layers 0-35", "Layers 0-2", "Layers 3-35"]
    assert text.count('class="drawing"') == 6


def test_no_recipe_is_explained_on_the_page(client: Client) -> None:
    put(client, "prod", query={"model": "m", "arch": "gfx942"})
    text = page(client, "/deployments/prod")
    assert "No recipe answers this query" in text
    assert "gpt-oss.a4w4.gfx950" in text


def test_nothing_told_becomes_markup(client: Client) -> None:
    query = {"model": HOSTILE, "arch": "gfx950", "engine": HOSTILE, "env": {HOSTILE: HOSTILE}}
    observation = {"query": query, "applied": {"tensors": {"w13_weight": {"layout": HOSTILE}}}}
    body = {"groups": [{"layers": "0", "observation": observation}], "node": HOSTILE, "aiter_build": HOSTILE}
    assert client.put("/v1/deployments/prod", json=body).status_code == 201
    for path in ("/", "/deployments/prod"):
        text = page(client, path)
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text


def test_a_browser_gets_a_page_where_there_is_no_deployment(client: Client) -> None:
    response = client.get("/deployments/absent", headers={"Accept": "text/html,*/*"})
    assert (response.status_code, response.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "No deployment is called absent" in response.text


def test_the_reference_describes_every_operation_offline(client: Client) -> None:
    text = page(client, "/docs")
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert f'<b class="method">{method.upper()}</b> {path}</code></h2>' in text
    for name in ("Query", "Decision", "Problem", "ReplicaReport", "DeploymentView"):
        assert f'id="type-{name}"' in text
