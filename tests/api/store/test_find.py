"""Search of deployments by part of their name, on both databases."""

from random import Random
from typing import Any

import pytest

from preshuffle.api.fleet.deployments import ReplicaReport
from preshuffle.api.fleet.judgement import judge
from preshuffle.api.store.listing import FleetFilter, FleetOrder
from preshuffle.api.store.store import Store
from preshuffle.api.store.uploads.conformance_store import find
from preshuffle.registry import Registry
from support.service.server import REPORT
from support.service.stores import put, report, silence

NAMES = ("GPT-prod", "gpt_canary", "gpt-canary", "qwen.eu")


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("", {*NAMES}),
        ("gpt", {"GPT-prod", "gpt_canary", "gpt-canary"}),
        ("GPT-", {"GPT-prod", "gpt-canary"}),
        ("_", {"gpt_canary"}),
        ("%", set()),
        ("\\", set()),
        ("gpt\0", set()),
        (".", {"qwen.eu"}),
        ("'; --", set()),
    ],
)
def test_a_part_of_a_name_is_literal_and_ignores_case(store: Store, part: str, found: set[str]) -> None:
    for name in NAMES:
        put(store, name)
    assert {one.name for one in store.page(9, part=part)[0]} == found
    assert {one.name for one in store.page(9, states=["ok"], part=part)[0]} == found
    assert store.tally(part)["ok"] == len(found)


@pytest.mark.parametrize(
    "chosen", [{"labels": (("a\0", None),)}, {"labels": (("a", "\0"),)}, {"owners": ("\0",)}], ids=str
)
def test_what_no_database_stores_is_found_nowhere(store: Store, chosen: dict[str, Any]) -> None:
    assert store.fleet(9, FleetFilter(**chosen), FleetOrder(), None) == ([], None)


def test_a_report_may_hold_any_characters(store: Store) -> None:
    query = {**REPORT["groups"][0]["observation"]["query"], "model": "a\0b"}
    group = {**REPORT["groups"][0], "observation": {**REPORT["groups"][0]["observation"], "query": query}}
    odd = ReplicaReport.parse({**REPORT, "groups": [group], "node": "a\0\nb", "aiter_build": "x\0"})
    store.put("odd", 0, odd, judge(odd, Registry.default()))
    assert [one.name for one in store.fleet(9, FleetFilter(), FleetOrder(), None)[0]] == ["odd"]
    assert find(store, ["x\0"]) == {"x\0": None}  # its page asks for this


def test_incomplete_ones_are_those_that_the_list_shows_as_incomplete(store: Store) -> None:
    random = Random(3)
    for number in range(40):
        stages = random.choice((1, 2, 3))
        for _ in range(random.randrange(1, 6)):
            replica, of = random.choice((0, 1)), random.choice((stages, stages, 2))
            stage = random.randrange(of)
            pipeline = None if random.random() < 0.1 else {"stage": stage, "stages": of}
            ttl_s = 60 if number % 4 == 0 else None
            at = replica + 1024 * stage if pipeline else replica
            put(store, f"d{number}", at, reported=report(str(random.random()), ttl_s=ttl_s, pipeline=pipeline))
        if number % 8 == 0:
            silence(store, f"d{number}")
    found = store.fleet(99, FleetFilter(), FleetOrder("name"), None)[0]
    wanted = {one.name: bool(one.incomplete) for one in found}
    assert 5 < sum(wanted.values()) < 35
    for incomplete in (True, False):
        listed = store.fleet(99, FleetFilter(incomplete=incomplete), FleetOrder("name"), None)[0]
        assert [one.name for one in listed] == [name for name, value in wanted.items() if value is incomplete]
