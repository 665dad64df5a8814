"""Why: every rule with what became of it."""

from typing import Any

import pytest

from preshuffle.registry import NoRecipeError, Query, QueryError
from preshuffle.registry.resolve.explain import RuleTrace
from support.book.strategies import BOOK, GPT_OSS, REGISTRY, decide

SWITCH = "GPTOSS_USE_GENERIC_SWIGLU_MXFP4_LAYOUT"


def traces(**fields: Any) -> tuple[RuleTrace, ...]:
    return REGISTRY.explain(Query.parse({**GPT_OSS, **fields})).rules


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"activation_dtype": "fp4x2", "tp": 4},
        {"env": {SWITCH: "1"}},
        {"engine": "vllm"},
        {"engine": "sglang", "env": {"SGLANG_USE_AITER_MOE_GU_ITLV": "0"}},
    ],
)
def test_the_chosen_rule_comes_first_and_is_the_one_that_resolve_takes(fields: dict[str, Any]) -> None:
    rules = traces(**fields)
    assert {item.rule for item in rules} == set(BOOK.rules)
    assert [item.outcome for item in rules].count("chosen") == 1
    assert (rules[0].outcome, rules[0].rule) == ("chosen", decide(**fields).rule)
    assert all(item.why for item in rules)


def test_a_rule_that_matches_too_says_which_is_more_specific() -> None:
    by_rule = {item.rule: item for item in traces(env={SWITCH: "1"})}
    loser = by_rule["gpt-oss.a16w4.gfx950"]
    assert (loser.outcome, loser.why) == ("less specific", "gpt-oss.a16w4.gfx950.generic is more specific")
    assert by_rule["gpt-oss.a16w4.gfx950.generic"].required[f"env.{SWITCH}"] == "1"


def test_a_rule_that_does_not_match_says_what_it_needed_and_what_was_found() -> None:
    item = next(item for item in traces() if item.rule == "gpt-oss.vllm")
    assert item.outcome == "does not match"
    assert item.why.split("; ")[0] == "needs engine=vllm, found absent"
    assert (item.required["engine"], item.found["engine"]) == ("vllm", None)


def test_it_answers_where_resolve_does_not() -> None:
    rules = traces(aiter="0.1.13")
    assert (rules[0].outcome, rules[0].rule) == ("lacks a requirement", "gpt-oss.a16w4.gfx950")
    assert "needs AITER's gate_mode (since 0.1.14), found 0.1.13" in rules[0].why
    assert {item.outcome for item in traces(model="nobody/knows-this")} == {"does not match"}


def test_it_shows_how_the_model_and_the_switches_were_read() -> None:
    explanation = REGISTRY.explain(Query.parse({**GPT_OSS, "model": "/models/gpt-oss-20b", "engine": "atom"}))
    assert explanation.model == "openai/gpt-oss-20b"
    assert explanation.switches["ATOM_MOE_GU_ITLV"] == "0"
    assert SWITCH not in explanation.switches
    assert explanation.registry_digest == REGISTRY.digest


@pytest.mark.parametrize(
    ("fields", "error"), [({"arch": "gfx999"}, NoRecipeError), ({"env": {SWITCH: "2"}}, QueryError)]
)
def test_what_it_cannot_explain(fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        traces(**fields)


def test_what_a_models_entry_does_not_know_for_sure_is_said() -> None:
    doubtful = REGISTRY.explain(Query(model="Qwen/Qwen3-30B-A3B-FP8", arch="gfx942", hidden_size=2048))
    assert "intermediate_size" in doubtful.unverified
    assert "hidden_size" not in doubtful.unverified, "the query says it itself"
    assert REGISTRY.explain(Query.parse(GPT_OSS)).unverified == ()


def test_shared_experts_and_notes_are_explained() -> None:
    query = {"arch": "gfx950", "engine": "atom"}
    fused = REGISTRY.explain(Query.parse({**query, "model": "deepseek-ai/DeepSeek-R1"}))
    assert fused.counted.startswith("1 shared expert counts among the experts")
    apart = REGISTRY.explain(Query.parse({**query, "model": "deepseek-ai/DeepSeek-V4-Flash"}))
    assert apart.counted.startswith("1 shared expert of fp8 stays apart from the fp4x2 experts: ")
    assert apart.note == "the shared expert is fp8"


@pytest.mark.parametrize("engine", [None, "atom", "vllm", "sglang"])
def test_rules_for_another_case_are_set_aside_and_the_others_are_in_question(engine: str | None) -> None:
    explanation = REGISTRY.explain(Query.parse({**GPT_OSS, "engine": engine}))
    for item in explanation.rules:
        facts = {"engine": "engine", "arch": "arch", "activation": "activation"}
        first = next((aside for field, aside in facts.items() if field in item.missed), None)
        assert item.aside in (first, "weights")
        assert (item in explanation.in_question) is (item.aside is None)
    assert explanation.rules[0] in explanation.in_question
    assert len(explanation.in_question) < 30


def test_where_no_rule_is_in_question_the_nearest_are() -> None:
    query = Query.parse({**GPT_OSS, "engine": "vllm", "weight_dtype": "i8"})
    assert len(REGISTRY.explain(query).in_question) == 3
