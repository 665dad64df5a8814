"""The page of the fleet: filters, order, groups."""

import html
import re
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.registry import Registry
from support.pages.markup import page
from support.service.server import OBSERVATION, Client

WRONG = {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}}


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default()))


def put(client: Client, name: str, **observation: Any) -> None:
    body = {"groups": [{"layers": "0-35", "observation": {**OBSERVATION, **observation}}]}
    assert client.put(f"/v1/deployments/{name}", json=body).status_code in (200, 201)


def test_states_and_names_narrow_the_list(client: Client) -> None:
    put(client, "right-a")
    put(client, "right-b")
    put(client, "wrong-a", applied={"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}})
    put(client, "per%cent".replace("%", "_"))
    names = re.compile(r'rowspan="1"><a id="[^"]+" href="/deployments/([^"]+)"')
    assert names.findall(page(client, "/?state=mismatch")) == ["wrong-a"]
    assert names.findall(page(client, "/?state=ok&name=A")) == ["right-a"]
    assert names.findall(page(client, "/?name=right")) == ["right-a", "right-b"]
    assert names.findall(page(client, "/?name=_")) == ["per_cent"]  # no wildcard
    assert "No deployment matches" in page(client, "/?name=nowhere")
    counts = re.findall(r'class="filter (\w+)[^>]*>.*?<b>(\d+)</b>', page(client, "/?name=-a"))
    assert dict(counts) | {"all": "2", "ok": "1", "mismatch": "1", "stale": "0"} == dict(counts)
    listed = client.get("/v1/deployments?name=RIGHT").json()["deployments"]
    assert [item["name"] for item in listed] == ["right-a", "right-b"]
    assert "is not a state" in page(client, "/?state=wonderful", 422)


def test_the_list_is_filtered_sorted_and_grouped(client: Client) -> None:
    report = {"labels": {"team": "x"}, "owner": "ann", "node": "n1"}
    for name, applied in (("right", OBSERVATION["applied"]), ("wrong", WRONG)):
        groups = [{"layers": "0", "observation": {**OBSERVATION, "applied": applied}}]
        client.put(f"/v1/deployments/{name}", json={**report, "groups": groups})
    put(client, "other")
    names = re.compile(r'rowspan="1"><a id="[^"]+" href="/deployments/([^"]+)"')
    text = page(client, "/")
    assert names.findall(text) == ["wrong", "right", "other"]
    for shown in ("w13_weight: bytes are gui16; ", "team=x", ">ann<", "since", "TP2"):
        assert shown in text
    assert names.findall(page(client, "/?label=team=x&sort=name&code=&node=n1")) == ["right", "wrong"]
    grouped = page(client, "/?group_by=label:team&sort=-name")
    assert names.findall(grouped) == ["wrong", "right", "other"]
    (link,) = re.findall(r'<th scope="row"><a href="([^"]+)">x</a>', grouped)
    assert names.findall(page(client, html.unescape(link))) == ["wrong", "right"]
    for state in ("mismatch", "ok"):
        chip = re.findall(rf'id="state-{state}" href="([^"]+)"', page(client, "/?owner=ann"))
        assert "owner=ann" in chip[0]
