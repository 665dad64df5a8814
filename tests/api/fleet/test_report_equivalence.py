"""Report equivalence: one key, one judgement."""

from typing import Any

import pytest

from preshuffle.api.fleet.deployments import ReplicaReport
from preshuffle.api.fleet.judgement import judge
from preshuffle.api.fleet.report_equivalence import ReportEquivalence
from preshuffle.registry import Registry
from preshuffle.registry.loading.load import load_book
from support.service.server import OBSERVATION

NAMES = ("canary-a", "canary-b", "prod-a", "prod-b", "bad-1", "spared-1", "bad-2", None)
BOOK = """
rules:
  test.canary:
    when: {model: openai/gpt-oss-120b, arch: gfx950, activation_dtype: fp4x2, deployment: [canary-a, canary-b]}
    use: mxfp4.gui16
    priority: 1
    because: a test
    evidence: [https://example.org/canary]
known_bad:
  test.bad:
    when: {arch: gfx950, deployment: ["bad-1", "spared-1"]}
    unless: {deployment: "spared-*"}
    effect: wrong
    says: a test
    workaround: none
    evidence: [https://example.org/bad]
"""


def report_of(name: str | None, **more: Any) -> ReplicaReport:
    query = {**OBSERVATION["query"], "tp": 1, **({"deployment": name} if name else {}), **more}
    return ReplicaReport.parse(
        {"groups": [{"layers": "0-35", "observation": {**OBSERVATION, "query": query}}], "node": f"node of {name}"}
    )


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(load_book(texts=[{"test.yaml": BOOK}]))


def test_equivalent_reports_get_equal_judgements(registry: Registry) -> None:
    equivalence = ReportEquivalence(registry.book)
    found: dict[str, set[str]] = {}
    for name in NAMES:
        found.setdefault(equivalence.key(report_of(name).canonical()), set()).add(judge(report_of(name), registry).text)
    assert [len(judgements) for judgements in found.values()] == [1] * len(found)
    keys = {name: equivalence.key(report_of(name).canonical()) for name in NAMES}
    assert keys["canary-a"] == keys["canary-b"]
    assert keys["prod-a"] == keys["prod-b"] == keys["bad-2"]
    assert len(set(keys.values())) == 5  # canaries, named, bad, spared, nameless
    assert len({judgement for judgements in found.values() for judgement in judgements}) > 2


def test_reports_of_different_layers_are_never_equivalent(registry: Registry) -> None:
    equivalence = ReportEquivalence(registry.book)
    reports = (report_of("prod-a"), report_of("prod-a", num_experts=64))
    assert len({equivalence.key(report.canonical()) for report in reports}) == 2
