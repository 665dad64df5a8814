"""Outcomes of layers: what agrees, what a known fault excuses, what is a disagreement, what is not known."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from preshuffle.layouts.conform.claim_log import ClaimLog
from preshuffle.layouts.conform.engines.check_engine import EngineJudge
from preshuffle.layouts.conform.engines.engine_cases import EngineCase
from preshuffle.registry.values.conformance import ClaimResult

FAULT = "engine: the tag is lost"
TAG = {"w1.is_shuffled": ["True", "False"]}
BYTES = {"w1": ["byte 5 is 0xc0", "byte 5 is 0xc1"]}


def case(**known: Any) -> EngineCase:
    sizes = {"hidden": 64, "intermediate": 64}
    return EngineCase("layer gfx950 tp1", "layer", "atom", "gfx950", "some/model", "bf16", **{**sizes, **known})


def judged(known: dict[str, Any], **answer: Any) -> ClaimResult:
    log = ClaimLog()
    judge = EngineJudge(log, "ATOM")
    judge.judge(case(**known), {"source": "atom/moe.py:7", "raised": None, "recipe": "some.recipe", **answer})
    judge.sum_up()
    return log.result()


LOST = {"expect": "differs", "differs": ("w1.is_shuffled",), "fault": FAULT}


@pytest.mark.parametrize("outcome", ["equal", "equal, other kernels", "refused, other kernels", "both refuse"])
def test_outcomes_that_agree(outcome: str) -> None:
    result = judged({}, outcome=outcome)
    assert (result.tried, result.agreed, result.notes, result.not_run) == (1, 1, (), ())


def test_a_known_fault_is_told_and_no_disagreement() -> None:
    result = judged(LOST, outcome="differs", differences=TAG)
    assert (result.tried, result.agreed, result.notes) == (1, 1, (f"known fault, 1 layer: {FAULT}",))


def test_a_known_fault_that_is_mended_is_told() -> None:
    result = judged(LOST, outcome="equal")
    assert (result.agreed, result.notes) == (1, (f"known fault that was not seen, 1 layer: {FAULT}",))


@pytest.mark.parametrize(
    ("known", "answer", "here", "there"),
    [
        ({}, {"outcome": "differs", "differences": BYTES}, "w1: byte 5 is 0xc0", "w1: byte 5 is 0xc1"),
        (LOST, {"outcome": "differs", "differences": {**TAG, **BYTES}}, "w1.is_shuffled: True; w1: byte", "False; w1"),
        ({**LOST, "fault": "book: it is ours"}, {"outcome": "differs", "differences": TAG}, "True", "False"),
        ({}, {"outcome": "rank", "differences": {"w1_scale.shape": ["uint8[64, 2]", "uint8[2, 32, 2]"]}}, "64", "32"),
        (LOST, {"outcome": "refused", "refusal": "no rule", "recipe": None}, "resolve refuses: no rule", "fused_moe"),
        ({}, {"outcome": "apply refuses", "refusal": "ApplyError: x"}, "apply refuses: ApplyError: x", "converts it"),
        ({}, {"outcome": "other kernels"}, "AITER's fused_moe is called", "other kernels run"),
    ],
)
def test_what_is_not_known_is_a_disagreement(
    known: dict[str, Any], answer: dict[str, Any], here: str, there: str
) -> None:
    result = judged(known, **answer)
    (found,) = result.disagreements
    assert (result.tried, result.agreed) == (1, 0)
    assert here in found.here
    assert there in found.there
    assert (found.case, found.source) == ("layer gfx950 tp1", "atom/moe.py:7")
    assert found.entry == ("rules" if answer.get("recipe", "") is None else "recipes.some.recipe")


def test_an_engine_that_raises_contradicts_nothing() -> None:
    result = judged({}, outcome="raises", raised="ValueError: no (moe.py:3)")
    assert (result.tried, result.disagreements) == (0, ())
    assert [(item.what, item.why) for item in result.not_run] == [
        ("layer gfx950 tp1", "ATOM raises ValueError: no (moe.py:3)")
    ]


def test_code_that_the_driver_does_not_know_says_nothing_of_the_engine() -> None:
    result = judged({**LOST, "expect": "both refuse"}, outcome="not driven", raised="ImportError: no name (atom.py:9)")
    (left,) = result.not_run
    assert (result.tried, left.why) == (0, "ATOM is not as its driver knows it: ImportError: no name (atom.py:9)")


def test_equal_errors_are_told_once() -> None:
    log = ClaimLog()
    judge = EngineJudge(log, "ATOM")
    for _ in range(3):
        judge.judge(case(), {"outcome": "raises", "raised": "ValueError: no (moe.py:3)"})
    judge.sum_up()
    assert [item.what for item in log.result().not_run] == ["layer gfx950 tp1 and 2 more"]
