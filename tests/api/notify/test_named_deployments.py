"""Metrics that name deployments in a bad state: bounded, worst first, off by a setting, and never wrong text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from preshuffle.api.app import create_app
from preshuffle.api.notify.bad_deployments import BadDeployment
from preshuffle.api.notify.collector import NotifyCollector
from preshuffle.api.notify.links import Links
from preshuffle.api.settings import Settings
from preshuffle.registry import Registry
from support.service.server import REPORT, Client

WRONG = json.loads(json.dumps(REPORT))
WRONG["groups"][0]["observation"]["applied"]["tensors"]["w13_weight"]["layout"] = "gui16"

NAMED = re.compile(r'preshuffle_deployment_info{.*?deployment="(\w+)"')


@pytest.mark.parametrize("most", [0, 2, 100])
def test_so_many_are_named_and_the_others_counted(tmp_path: Path, most: int) -> None:
    settings = Settings(db=f"sqlite:///{tmp_path}/store.db", metric_deployments=most)
    client = Client(create_app(settings, Registry.default()).state.front)
    for name in ("a", "b", "c"):
        client.put(f"/v1/deployments/{name}", json=WRONG)
    client.put("/v1/deployments/fine", json=REPORT)
    text = client.get("/metrics").text
    assert NAMED.findall(text) == ["a", "b", "c"][:most]
    assert f"preshuffle_unnamed_deployments {max(0, 3 - most)}.0" in text
    assert 'preshuffle_paging_deployments{verdict="mismatch"} 3.0' in text
    client.put("/v1/deployments/a", json=REPORT)
    assert "a" not in NAMED.findall(client.get("/metrics").text)


class Found:
    """Deployments as if a store had them."""

    def __init__(self, *found: BadDeployment) -> None:
        self.found = found

    def find(self) -> tuple[BadDeployment, ...]:
        return self.found


def test_labels_of_deployments_become_labels_that_prometheus_takes() -> None:
    common = {"replica": 0, "node": 'n"1\n', "code": "tag_lost", "silent": False, "seen_s": 1.0}
    first = BadDeployment("a", "mismatch", labels={"team": "x", "app.io/tier": "y", "app-io/tier": "z"}, **common)  # type: ignore[arg-type]
    many = BadDeployment("b", "drifted", labels={f"k{number:02}": "v" for number in range(40)}, **common)  # type: ignore[arg-type]
    collector = NotifyCollector(Found(first, many), 10, Links(""), None)  # type: ignore[arg-type]
    registry = CollectorRegistry()
    registry.register(collector)
    families = {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}
    one, two = families["preshuffle_deployment_info"].samples
    assert one.labels["node"] == 'n"1\n'
    assert {name: value for name, value in one.labels.items() if value in "yz" and value} == {
        "label_app_io_tier": "z",
        "label_app_io_tier_1": "y",
    }
    assert (one.labels["runbook"], two.labels["runbook"]) == ("/docs/runbooks/tag_lost", "/docs/runbooks/drifted")
    assert len(two.labels) <= 26
