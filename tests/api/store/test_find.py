"""Search of deployments by part of their name, on both databases."""

from typing import Any

import pytest

from preshuffle.api.fleet.deployments import ReplicaReport
from preshuffle.api.fleet.judgement import judge
from preshuffle.api.store.listing import FleetFilter, FleetOrder
from preshuffle.api.store.store import Store
from preshuffle.api.store.uploads.conformance_store import find
from preshuffle.registry import Registry
from support.service.server import REPORT

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
    report = ReplicaReport.parse(REPORT)
    judgement = judge(report, Registry.default())
    for name in NAMES:
        store.put(name, 0, report, judgement)
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
    report = ReplicaReport.parse({**REPORT, "groups": [group], "node": "a\0\nb", "aiter_build": "x\0"})
    store.put("odd", 0, report, judge(report, Registry.default()))
    assert [one.name for one in store.fleet(9, FleetFilter(), FleetOrder(), None)[0]] == ["odd"]
    assert find(store, ["x\0"]) == {"x\0": None}  # its page asks for this
