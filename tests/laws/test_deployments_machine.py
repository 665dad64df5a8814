"""Law: deployments over HTTP behave as a dictionary, on both databases.

Requests come in any order, by a rule-based state machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from preshuffle.api.app import create_app
from preshuffle.api.settings import Settings
from preshuffle.api.store.store import Store
from preshuffle.registry import Registry
from support.service.server import OBSERVATION, REPORT, Client
from support.service.stores import url_of

NAMES = st.sampled_from(["a", "B", "a-1", "z.9"])
REPLICAS = st.integers(0, 2)
APPLIED = {
    "ok": OBSERVATION["applied"],
    "mismatch": {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}},
    "unknown": {},
}
ORDER = ("ok", "unknown", "mismatch")
REPORTS = st.tuples(st.sampled_from(ORDER), st.sampled_from(["n1", "n2"]))


def body(reported: tuple[str, str]) -> dict[str, Any]:
    verdict, node = reported
    return {
        **REPORT,
        "node": node,
        "groups": [{"layers": "0", "observation": {**OBSERVATION, "applied": APPLIED[verdict]}}],
    }


class Deployments(RuleBasedStateMachine):
    """State machine of the service and its model; the test sets ``client`` and ``store``."""

    client: Client
    store: Store

    @initialize()
    def begin(self) -> None:
        for deployment in self.client.get("/v1/deployments").json()["deployments"]:
            assert self.client.delete(f"/v1/deployments/{deployment['name']}").status_code == 204
        self.reports: dict[str, dict[int, tuple[str, str]]] = {}
        self.revisions: dict[str, int] = {}
        self.latest = self.store.counters()["revision"]
        self.events: dict[str, int] = {}

    @rule(name=NAMES, replica=REPLICAS, reported=REPORTS, condition=st.sampled_from([None, "right", "wrong", "*"]))
    def put(self, name: str, replica: int, reported: tuple[str, str], condition: str | None) -> None:
        known = name in self.reports
        answer = self.client.put(
            f"/v1/deployments/{name}?replica={replica}", json=body(reported), headers=self.tag(name, condition)
        )
        if condition == "wrong" or (condition is not None and not known):
            assert answer.status_code == 412
            return
        same = self.reports.get(name, {}).get(replica) == reported
        assert answer.status_code == (200 if known else 201)
        assert answer.json()["changed"] is not same
        assert (answer.json()["revision"] > self.latest) is not same
        self.reports.setdefault(name, {})[replica] = reported
        self.revisions[name] = answer.json()["revision"]
        self.latest = max(self.latest, self.revisions[name])
        self.events[name] = self.events.get(name, 0) + (not same)

    @rule(name=NAMES, replica=st.none() | REPLICAS, condition=st.sampled_from([None, "right", "wrong"]))
    def delete(self, name: str, replica: int | None, condition: str | None) -> None:
        query = "" if replica is None else f"?replica={replica}"
        answer = self.client.delete(f"/v1/deployments/{name}{query}", headers=self.tag(name, condition))
        if condition == "wrong" or (condition is not None and name not in self.reports):
            assert answer.status_code == 412
            return
        stored = self.reports.get(name, {})
        deleted = list(stored) if replica is None else [replica] if replica in stored else []
        assert answer.status_code == (204 if deleted else 404)
        if not deleted:
            return
        for number in deleted:
            del stored[number]
        if not stored:
            del self.reports[name], self.revisions[name]
        else:
            self.revisions[name] = int(self.client.get(f"/v1/deployments/{name}").headers["etag"].strip('"'))
            assert self.revisions[name] > self.latest
        self.latest = self.store.counters()["revision"]

    @rule(name=NAMES, replica=REPLICAS)
    def beat(self, name: str, replica: int) -> None:
        answer = self.client.post(f"/v1/deployments/{name}/heartbeat?replica={replica}")
        assert answer.status_code == (200 if replica in self.reports.get(name, {}) else 404)

    @rule(name=NAMES)
    def health(self, name: str) -> None:
        status = self.client.get(f"/v1/deployments/{name}/health").status_code
        verdict = self.verdict(name)
        assert status == (404 if verdict is None else 503 if verdict == "mismatch" else 200)

    @rule(state=st.sampled_from(ORDER))
    def filtered(self, state: str) -> None:
        deployments = self.client.get(f"/v1/deployments?state={state}").json()["deployments"]
        assert [deployment["name"] for deployment in deployments] == sorted(
            name for name in self.reports if self.verdict(name) == state
        )

    @invariant()
    def the_list_shows_what_was_reported(self) -> None:
        deployments = self.client.get("/v1/deployments").json()["deployments"]
        assert [deployment["name"] for deployment in deployments] == sorted(self.reports)
        for deployment in deployments:
            name = deployment["name"]
            assert deployment["replicas"] == sorted(self.reports[name])
            assert (deployment["revision"], deployment["verdict"]) == (self.revisions[name], self.verdict(name))

    def verdict(self, name: str) -> str | None:
        """Return the worst verdict in the model."""
        return max((verdict for verdict, _ in self.reports.get(name, {}).values()), key=ORDER.index, default=None)

    def tag(self, name: str, condition: str | None) -> dict[str, str]:
        """Return the header of a condition."""
        tags = {"right": f'"{self.revisions.get(name, 0)}"', "wrong": '"0"', "*": "*"}
        return {"If-Match": tags[condition]} if condition else {}


@pytest.fixture(params=["sqlite", "postgresql"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[type[Deployments]]:
    store = Store(url_of(request.param, tmp_path)).create()
    client = Client(create_app(Settings(), Registry.default(), store))
    yield type("Deployments", (Deployments,), {"client": client, "store": store})
    store.close()


SHORT = settings(
    max_examples=6,
    stateful_step_count=12,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def test_any_order_of_requests(machine: type[Deployments]) -> None:
    run_state_machine_as_test(machine, settings=SHORT)


@pytest.mark.slow
def test_many_orders_of_requests(machine: type[Deployments]) -> None:
    run_state_machine_as_test(
        machine, settings=settings(SHORT, max_examples=200, stateful_step_count=40, derandomize=False)
    )
