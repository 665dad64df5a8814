"""Re-check by another registry: every replica once, in batches, interruptible."""

from __future__ import annotations

import sys

import pytest
from sqlalchemy import update

from preshuffle.api.fleet.judgement import judge_name
from preshuffle.api.store.schema import replicas
from preshuffle.api.store.store import Store
from preshuffle.api.upkeep.recheck import is_due, recheck
from preshuffle.registry import Registry
from preshuffle.registry.loading.load import load_book
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.report import Report
from support.service.stores import put, report

OTHER = """
rules:
  test.other:
    when: {model: openai/gpt-oss-120b, arch: gfx950, activation_dtype: fp4x2, deployment: elsewhere}
    use: mxfp4.gui16
    because: it makes another registry of this one
    evidence: [https://example.org/other]
"""


@pytest.fixture(scope="module")
def other() -> Registry:
    return Registry(load_book(texts=[{"other.yaml": OTHER}]))


def test_every_replica_is_judged_once(store: Store, other: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["preshuffle.api.upkeep.recheck"], "BATCH", 3)
    for number in range(8):
        put(store, f"d{number % 5}", number)
    now = judge_name(Registry.default())
    assert not is_due(store, now)
    assert is_due(store, judge_name(other))
    assert recheck(store, other, only=("d1", 1)) == 1
    assert recheck(store, other) == 7
    assert not is_due(store, judge_name(other))
    assert recheck(store, other) == 0
    assert len(store.history(100).events) == 8  # no verdict changed


def test_it_stops_on_request_and_continues_later(
    store: Store, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["preshuffle.api.upkeep.recheck"], "BATCH", 2)
    for number in range(6):
        put(store, "d", number)
    answers = iter([False, False, True])
    assert recheck(store, other, lambda: next(answers)) == 4
    assert recheck(store, other) == 2


def test_a_report_that_changes_meanwhile_keeps_its_own_judgement(store: Store, other: Registry) -> None:
    class Slow(Registry):
        """While it checks, the replica reports something else."""

        def check(self, observation: Observation, *, decide: bool = False) -> Report:
            put(store, "d", 0, report("later"))
            return super().check(observation, decide=decide)

    put(store, "d", 0)
    assert recheck(store, Slow(other.book)) == 0
    deployment = store.get("d")
    assert deployment is not None
    assert deployment.replicas[0].report.node == "later"
    assert is_due(store, judge_name(other))
    assert recheck(store, other) == 1


def test_a_report_that_cannot_be_judged_is_unknown_and_stops_no_other(store: Store, other: Registry) -> None:
    for name in ("a", "broken", "c"):
        put(store, name)
    with store.transaction(write=True) as connection:
        broken = replicas.c.name == "broken"
        connection.execute(update(replicas).where(broken).values(report='{"groups": "of another time"}'))
    assert recheck(store, other) == 3
    assert {one.name: one.state for one in store.page(5)[0]} == {"a": "ok", "broken": "unknown", "c": "ok"}
