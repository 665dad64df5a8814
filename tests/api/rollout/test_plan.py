"""Rollout plans: what a candidate would change for the stored deployments."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from preshuffle.api.answers.answers import Answers
from preshuffle.api.app import create_app
from preshuffle.api.rollout import planner as planner_module
from preshuffle.api.rollout.plan import plan
from preshuffle.api.rollout.plan_values import Candidate, Plan
from preshuffle.api.rollout.planner import Planner
from preshuffle.api.routes.kernels import EXAMPLE as TABLE
from preshuffle.api.settings import Settings
from preshuffle.api.store.store import Store
from preshuffle.api.web.problem import ProblemError
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import BookError, QueryError
from support.service.server import OBSERVATION, REPORT, Client
from support.service.stores import put, report

ROLLOUT = "rules:\n" + "".join(
    f"""
  test.{name}:
    when: {{model: openai/gpt-oss-120b, arch: gfx950, activation_dtype: fp4x2, deployment: {name}}}
    use: mxfp4.gui16
    because: canaries go first
    evidence: [https://example.org/rollout]
"""
    for name in ("canary-a", "canary-b")
)

NEVER = "rules:\n  a:\n    when: {arch: H200}\n    use: null\n    because: a test\n"


def report_for(name: str, **query: Any) -> Any:
    observation = {**OBSERVATION, "query": {**OBSERVATION["query"], "deployment": name, **query}}
    return report(groups=[{"layers": "0-35", "observation": observation}])


@pytest.fixture
def filled(store: Store) -> Store:
    for name in ("canary-a", "canary-b", "prod"):
        put(store, name, 0, report_for(name))
    put(store, "canary-a", 1, report_for("canary-a"))
    return store


def made(store: Store, **candidate: Any) -> Plan:
    return plan(store, Registry.default(), Candidate.parse(candidate))


ENDLESS = """
kernel_families:
  test.endless:
    {stage: "1", funcs: [x], priority: 9, grammar: '^(\\w+\\w+)+!$', variants: [{reads: {}}], evidence: [https://example.org]}
"""


def test_a_pattern_that_re_never_ends_is_planned_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner_module, "_TIMEOUT_S", 60.0)
    applied = {"kernels": [{"stage1": f"flydsl_moe1_{'a' * 60}", "tokens": 1}]}
    app = create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default())
    client = Client(app)
    groups = [{"layers": "0-35", "observation": {**OBSERVATION, "applied": applied}}]
    stored = client.put("/v1/deployments/a", json={**REPORT, "groups": groups})
    assert stored.status_code == 201, stored.text
    planned = client.post("/v1/plan", json={"books": [{"endless.yaml": ENDLESS}]})
    assert planned.status_code == 200, planned.text
    assert client.post("/v1/plan", json={"books": [{"rollout.yaml": ROLLOUT}]}).status_code == 200


def test_changed_decisions_are_listed_with_the_reason(filled: Store) -> None:
    found = made(filled, books=[{"rollout.yaml": ROLLOUT}])
    assert (found.deployments, found.unchanged) == (3, 1)
    assert [(change.id, change.change) for change in found.book] == [
        ("test.canary-a", "added"),
        ("test.canary-b", "added"),
    ]
    places = [(where.deployment, where.replicas, where.layers) for item in found.items for where in item.where]
    assert sorted(places) == [("canary-a", (0, 1), "0-35"), ("canary-b", (0,), "0-35")]
    for item in found.items:
        assert (item.before.recipe, item.after.recipe) == ("mxfp4.sep16", "mxfp4.gui16")
        assert item.after.rule == f"test.{item.where[0].deployment}"
        assert "canaries go first" in item.after.reason
        assert (item.decision_changes, item.bytes_change, item.restart) == (True, True, True)
        changed = {change.field: (change.before, change.after) for change in item.changes}
        assert changed["tensors.w13_weight.layout"] == ("sep16", "gui16")
        assert changed["call.gate_mode"] == ("separated", "interleave")
        assert item.before.verdict == item.after.verdict == "ok"


def test_the_same_book_changes_nothing(filled: Store) -> None:
    found = made(filled, books=[])
    assert (found.registry_after, found.items, found.unchanged) == (found.registry_before, (), 3)


def test_another_aiter_is_judged_with_the_stored_report(store: Store) -> None:
    put(store, "old", 0, report_for("old", aiter="0.1.20"))
    put(store, "outside", 0, report_for("outside", aiter="0.1.20"))
    found = made(store, aiter="0.1.7", deployments="ol?")
    assert found.deployments == 1
    (item,) = found.items
    assert item.before.recipe == "mxfp4.sep16"
    assert (item.before.verdict, item.after.verdict) == ("ok", "unsupported")
    assert item.new_findings


def test_what_gets_worse_comes_first_and_is_counted(store: Store) -> None:
    put(store, "old", 0, report_for("old", aiter="0.1.20"))
    put(store, "same", 0, report_for("same", aiter="0.1.7"))
    found = made(store, aiter="0.1.7")
    assert (found.worse, found.better, found.same) == (1, 0, 1)
    assert [item.becomes for item in found.items][:1] == ["worse"]
    back = made(store, aiter="0.1.20")
    assert (back.worse, back.better, back.same) == (0, 1, 1)
    assert {item.becomes for item in back.items} == {"better"}


def test_an_undecided_side_means_restart(store: Store) -> None:
    put(store, "old", 0, report_for("old", aiter="0.1.20"))
    (item,) = made(store, aiter="0.1.7").items
    assert (item.after.recipe, item.bytes_change, item.restart) == (None, None, True)


def test_other_kernels_of_another_aiter_mean_restart(store: Store) -> None:
    put(store, "old", 0, report_for("old", aiter="0.1.20"))
    for version in ("0.1.14", "0.1.16", "0.1.18"):
        for item in made(store, aiter=version).items:
            assert item.restart or not (item.kernels or item.decision_changes)


def test_probed_features_are_not_assumed_of_another_aiter(store: Store) -> None:
    features = "gate_mode,swiglu_separated_a4w4"
    put(store, "prod", 0, report_for("prod", tp=1, aiter="0.1.13", aiter_features=features))
    (item,) = made(store, aiter="0.1.12").items
    assert (item.before.recipe, item.after.recipe) == ("mxfp4.sep16", None)
    assert (item.before.verdict, item.after.verdict) == ("ok", "unsupported")


def test_other_kernel_tables_move_kernels_and_no_bytes(filled: Store) -> None:
    found = made(filled, tables={"0.1.20": {"tuned_fmoe.csv": TABLE}})
    assert found.tables_before is None
    assert found.tables_after is not None
    assert not any(item.restart or item.bytes_change for item in found.items)


@pytest.mark.parametrize(
    ("candidate", "error", "says"),
    [
        ({}, QueryError, "nothing would change"),
        ({"aiter": "new"}, QueryError, "aiter"),
        ({"books": [{"x.yaml": "rules: {a: 5}"}]}, BookError, r"x\.yaml:1:\d+: a needs fields"),
        ({"books": [{"x.yaml": NEVER}]}, BookError, r"x\.yaml:3:\d+: arch 'H200' is an NVIDIA GPU"),
        ({"books": [{"x.yaml": "a: &a [1]\nb: *a"}]}, BookError, "aliases are not allowed"),
        ({"tables": {"0.1.20": {"t.csv": "no,table\n1,2\n"}}}, QueryError, r"t\.csv"),
        ({"tables": {"0.1.20": {}}}, QueryError, "tables"),
    ],
)
def test_a_wrong_candidate_is_refused_with_its_place(
    tmp_path: Path, candidate: dict[str, Any], error: type[Exception], says: str
) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.db").create()
    with pytest.raises(error, match=says):
        made(store, **candidate)
    store.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    store = Store(f"sqlite:///{tmp_path}/store.db").create()
    put(store, "canary-a", 0, report_for("canary-a"))
    yield Client(create_app(Settings(), Registry.default(), store))
    store.close()


@pytest.mark.parametrize("few", [0, 100])
def test_over_http_a_large_fleet_is_planned_in_a_child_process(
    client: Client, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preshuffle.api.upkeep.worker_process.FEW", few)
    answer = client.post("/v1/plan", json={"books": [{"rollout.yaml": ROLLOUT}]})
    assert answer.status_code == 200, answer.text
    found = Plan.model_validate_json(answer.content)
    assert [where.deployment for item in found.items for where in item.where] == ["canary-a"]
    wrong = client.post("/v1/plan", json={"books": [{"x.yaml": "rules: {a: 5}"}]})
    assert (wrong.status_code, wrong.json()["problems"][0]["field"]) == (422, "x.yaml:1:9")


def never(_url: str, _now: Registry, _candidate: Candidate) -> Plan:
    """Plan until the process is ended."""
    while True:
        time.sleep(1)


def test_a_running_plan_is_cancelled_at_shutdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preshuffle.api.upkeep.worker_process.FEW", 0)
    monkeypatch.setattr("preshuffle.api.rollout.planner.plan_in_child", never)
    store = Store(f"sqlite:///{tmp_path}/store.db").create()
    put(store, "canary-a", 0, report_for("canary-a"))
    planner = Planner(store, Answers(Registry.default()))
    candidate = Candidate.parse({"books": [{"rollout.yaml": ROLLOUT}]})
    kinds: list[str] = []

    async def ask() -> None:
        with pytest.raises(ProblemError) as caught:
            async with planner.turn():
                await planner.plan(candidate)
        kinds.append(caught.value.kind)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(ask)  # and one that waits for it
            while not planner._worker.running:
                await anyio.sleep(0.01)
            planner.stop()

    anyio.run(main)
    assert kinds == ["interrupted", "interrupted"]
    store.close()
