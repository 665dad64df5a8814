"""State changes: each is recorded with its cause, and passed on once, whoever made it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from preshuffle.api.fleet.judgement import judge_name
from preshuffle.api.notify.change_log import fields_of, sentence
from preshuffle.api.store.state_changes import StateChange, claim_state_changes
from preshuffle.api.store.store import Store
from preshuffle.api.upkeep.change_feed import ChangeFeed
from preshuffle.api.upkeep.liveness import update_liveness
from preshuffle.api.upkeep.recheck import is_due, recheck
from preshuffle.registry import Registry
from preshuffle.registry.loading.load import load_book
from support.service.old_stores import old_store
from support.service.server import OBSERVATION
from support.service.stores import put, report, silence

WRONG = {**OBSERVATION, "applied": {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}}}
OTHER = """
rules:
  test.other:
    when: {model: openai/gpt-oss-120b, arch: gfx950, activation_dtype: fp4x2, tp: 2}
    use: mxfp4.gui16
    because: it decides otherwise
    evidence: [https://example.org/other]
    priority: 9
"""


def groups(observation: object) -> list[dict[str, Any]]:
    return [{"layers": "0-35", "observation": observation}]


def steps(changes: Sequence[StateChange]) -> list[tuple[str, str | None, str | None]]:
    return [(change.action, change.state_before, change.state_after) for change in changes]


def test_every_writer_records_codes_and_cause(store: Store) -> None:
    put(store, "a", reported=report(ttl_s=3600))
    put(store, "a", reported=report(ttl_s=3600, groups=groups(WRONG)), who="bob")
    put(store, "a", reported=report(ttl_s=3600))
    silence(store, "a")
    update_liveness(store)
    store.beat([("a", 0)])
    update_liveness(store)
    recheck(store, Registry(load_book(texts=[{"other.yaml": OTHER}])))
    store.delete("a", who="ann")
    changes = claim_state_changes(store)
    assert steps(changes) == [
        ("report", None, "ok"),
        ("report", "ok", "mismatch"),
        ("report", "mismatch", "ok"),
        ("silent", "ok", "stale"),
        ("back", "stale", "ok"),
        ("recheck", "ok", "drifted"),
        ("forget", "drifted", None),
    ]
    wrong, well, silent, back, drifted, gone = changes[1:]
    assert wrong.codes == ("layout_mismatch",)
    assert wrong.cause
    assert wrong.cause.startswith("w13_weight: bytes are gui16; ")
    assert wrong.digest
    assert wrong.who == "bob"
    assert (well.codes, well.cause, back.cause) == ((), None, None)
    assert silent.cause
    assert silent.cause.startswith("silent since ")
    assert drifted.cause == "the registry decides otherwise now than when it was loaded"
    assert gone.cause == "forgotten by ann"
    assert {(change.name, change.replica, change.node) for change in changes} == {("a", 0, "n")}
    events = store.history(20, subject="a").events
    assert [(event.codes, event.cause) for event in reversed(events)] == [(one.codes, one.cause) for one in changes]


def test_every_writer_records_the_stage(store: Store) -> None:
    pipeline = {"stage": 1, "stages": 2}
    put(store, "a", 1027, reported=report(ttl_s=3600, pipeline=pipeline))
    silence(store, "a")
    update_liveness(store)
    store.beat([("a", 1027)])
    update_liveness(store)
    recheck(store, Registry(load_book(texts=[{"other.yaml": OTHER}])))
    store.delete("a", who="ann")
    changes = claim_state_changes(store)
    assert [change.action for change in changes] == ["report", "silent", "back", "recheck", "forget"]
    assert {change.title for change in changes} == {"3 (stage 1 of 2)"}
    assert "a replica 3 (stage 1 of 2) on n went from ok to stale" in sentence(changes[1])
    assert fields_of(changes[1])["stage"] == "1/2"


def test_a_report_of_a_silent_replica_ends_its_silence(store: Store) -> None:
    put(store, "a", reported=report(ttl_s=3600))
    silence(store, "a")
    update_liveness(store)
    put(store, "a", reported=report(ttl_s=3600, groups=groups(WRONG)))
    assert update_liveness(store) == 0
    assert steps(claim_state_changes(store))[1:] == [("silent", "ok", "stale"), ("report", "stale", "mismatch")]


def test_what_changes_no_state_is_not_passed_on(store: Store) -> None:
    put(store, "a", reported=report(ttl_s=3600, groups=groups(WRONG)))
    put(store, "a", reported=report("elsewhere", ttl_s=3600, groups=groups(WRONG)))
    silence(store, "a")
    assert update_liveness(store) == 1
    assert steps(claim_state_changes(store)) == [("report", None, "mismatch")]


def test_each_change_is_passed_to_every_listener_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preshuffle.api.store.state_changes._BATCH", 2)
    seen: list[int] = []

    def fail(_changes: Sequence[StateChange]) -> None:
        raise LookupError

    feed, other = ChangeFeed(store), ChangeFeed(store)
    feed.subscribe(fail)
    feed.subscribe(lambda changes: seen.extend(change.replica for change in changes))
    for replica in range(5):
        put(store, "a", replica)
    counters = store.counters()
    assert feed.publish() == 5
    assert seen == [0, 1, 2, 3, 4]
    assert (feed.publish(), other.publish()) == (0, 0)
    assert store.counters() == counters  # passing on is no change
    put(store, "b")
    assert other.publish() == 1
    assert feed.publish() == 0


def test_a_store_of_the_first_release_gets_facts_and_loses_variables_of_others(database: str) -> None:
    secret = {**OBSERVATION, "query": {**OBSERVATION["query"], "engine": "vllm@0.33.0", "ep": 4}}
    old = report("node-7", groups=groups(secret))
    finding = {"code": "pad_fill", "severity": "error", "message": "padding is 7"}
    judged = [{"arch": "gfx950", "findings": [finding], "decision_digest": "sha256:1"}]
    change = {"field": "groups.0.observation.query.env.DB_PASSWORD", "before": None, "after": "hunter2"}
    node = {"field": "node", "before": "a", "after": "node-7"}
    times = {"created_ms": 5, "replaced_ms": 9}
    replica = {"name": "kept", "replica": 3, "report": old.canonical(), "judgement": json.dumps(judged), **times}
    entry = {"who": "x", "action": "report", "subject": "kept", "replica": 3, "state_before": "ok"}
    rows: dict[str, list[dict[str, Any]]] = {
        "deployments": [{"name": "kept", "revision": 1, **times}],
        "replicas": [{**replica, "judged_by": judge_name(Registry.default()), "state": "mismatch"}],
        "beats": [{"name": "kept", "replica": 3, "seen_ms": 9, "ttl_ms": None, "silent": False}],
        "history": [{**entry, "at_ms": 7, "state_after": "mismatch", "detail": json.dumps([change, node])}],
    }
    old_store(database, "0004", rows)
    store = Store(database).create()
    (event,) = store.history(5).events
    assert [one.field for one in event.changes] == ["node"]
    assert claim_state_changes(store) == ()  # it was before anybody could listen
    assert is_due(store, judge_name(Registry.default()))
    assert recheck(store, Registry.default()) == 1
    (found,) = claim_state_changes(store)
    assert (found.state_before, found.state_after, found.node) == ("mismatch", "unsupported", "node-7")
    store.close()
