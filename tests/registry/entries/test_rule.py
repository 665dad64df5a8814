"""Which of two rules wins, and what a rule may say."""

from pathlib import Path

import pytest

from preshuffle.registry import BookError, NoRecipeError, Rule
from preshuffle.registry.entries.rule import FIELDS, kind_of
from preshuffle.registry.values.query import Query
from support.book.strategies import BOOK, GPT_OSS, decide, load_overlay

WHY = {"use": "mxfp4.sep16", "because": "a test", "evidence": ["https://example.com"]}


def rule(when: str, id: str = "mine", use: str = "mxfp4.sep16", priority: int = 0) -> str:
    return (
        f"  {id}:\n    when: {when}\n    use: {use}\n    priority: {priority}\n"
        "    because: a test\n    evidence: [https://example.com]\n"
    )


def test_rules_may_ask_for_every_field_that_changes_an_answer() -> None:
    assert set(FIELDS) == set(Query.model_fields) - {"tokens", "swiglu_limit", "aiter_features"} | {"engine_version"}


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("model", "glob"),
        ("engine", "glob"),
        ("deployment", "glob"),
        ("aiter", "version"),
        ("rocm", "version"),
        ("engine_version", "version"),
        ("tp", "number"),
        ("hidden_size", "number"),
        ("arch", "plain"),
        ("gated", "plain"),
    ],
)
def test_how_a_field_is_read(field: str, kind: str) -> None:
    assert kind_of(field) == kind


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        ({"arch": "gfx950"}, {"arch": ["gfx950", "gfx942"]}),
        ({"model": ["a", "b"]}, {"model": "a*"}),
        ({"tp": 2}, {"tp": ">=2"}),
        ({"tp": [2]}, {"tp": ">=2"}),
        ({"engine": None}, {"engine": "*"}),
        ({"arch": "gfx950", "tp": 2}, {"arch": "gfx950"}),
        ({"arch": "gfx950", "model": ["a"]}, {"arch": "gfx950", "model": "a*"}),
        ({"arch": "gfx950", "model": "a*"}, {"arch": "gfx950"}),
        ({"arch": "gfx950", "env": {"ATOM_MOE_GU_ITLV": "1"}}, {"arch": "gfx950"}),
        ({"arch": "gfx950"}, {}),
    ],
)
def test_specificity(stronger: dict[str, object], weaker: dict[str, object]) -> None:
    """Exact beats list beats glob or range; more fields beat fewer; and only then priority counts."""
    first = Rule.model_validate({"id": "a", "when": stronger, **WHY})
    second = Rule.model_validate({"id": "b", "when": weaker, "priority": 1000, **WHY})
    assert first.specificity > second.specificity


def test_priority_breaks_a_tie_only() -> None:
    low, high = (Rule.model_validate({"id": "a", "when": {"tp": 2}, "priority": n, **WHY}) for n in (-1, 1))
    assert high.specificity > low.specificity


CANARY = "rules:\n" + rule(
    "{model: openai/gpt-oss-120b, arch: gfx950, activation_dtype: bf16, engine: null, deployment: 'canary-*'}", "canary"
)


@pytest.mark.parametrize(
    ("deployment", "recipe"),
    [("canary-1", "mxfp4.sep16"), ("canary-", "mxfp4.sep16"), ("prod", "mxfp4.gui16"), (None, "mxfp4.gui16")],
)
def test_a_layout_is_rolled_out_to_some_deployments_first(tmp_path: Path, deployment: str, recipe: str) -> None:
    registry = load_overlay(tmp_path, CANARY)
    decision = decide(registry, deployment=deployment)
    assert (decision.recipe, decision.rule == "canary") == (recipe, recipe == "mxfp4.sep16")


def test_a_canary_leaves_other_models_alone(tmp_path: Path) -> None:
    registry = load_overlay(tmp_path, CANARY)
    assert decide(registry, deployment="canary-1", model="openai/gpt-oss-20b").recipe == "mxfp4.gui16"


@pytest.mark.parametrize(
    ("when", "path", "part"),
    [
        ("{aiter: garbage}", "when.aiter", "'garbage' is not a version"),
        ("{aiter: 0.1}", "when.aiter", "neither a value nor a list"),
        ("{arhc: gfx950}", "when.arhc", "unknown field; valid: model, arch"),
        ("{tokens: 1}", "when.tokens", "unknown field"),
        ("{env: [A]}", "when.env", "a mapping of switches"),
        ("{env: {ATOM_MOE_GU_ITLV: 1}}", "when.env.ATOM_MOE_GU_ITLV", "write it in quotes"),
        ("{tp: '2'}", "when.tp", "found '2'"),
        ("{tp: true}", "when.tp", "found True"),
        ("{tp: null}", "when.tp", "found None"),
        ("{gated: 'true'}", "when.gated", "found 'true'"),
        ("{weight_dtype: fp5}", "when.weight_dtype", "valid: bf16, fp16, fp8, fp4x2, i4x2, i8"),
        ("{weight_dtype: [fp4x2, fp5]}", "when.weight_dtype", "'fp5' is not one of"),
        ("{quant_type: 'per_*'}", "when.quant_type", "'per_*' is not one of"),
        ("{producer: '>=5'}", "when.producer", "a field that counts"),
        ("{engine: vllm@0.33.0}", "when.engine", "engine_version"),
        ("{engine: {name: vllm}}", "when.engine", "neither a value nor a list"),
        ("{model: ['openai/*', b]}", "when.model", "a list has no globs"),
    ],
)
def test_a_condition_that_could_never_match_does_not_load(tmp_path: Path, when: str, path: str, part: str) -> None:
    text = "rules:\n" + rule(when)
    with pytest.raises(BookError) as caught:
        load_overlay(tmp_path, text)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (3, 12 if path.count(".") == 1 else 18)
    assert problem.message.startswith(f"{path}: ")
    assert part in str(problem)


def test_a_switch_that_holds_text_is_in_no_range(tmp_path: Path) -> None:
    text = "rules:\n" + rule("{arch: gfx950, env: {AITER_BF16_FP8_MOE_BOUND: '>=512'}}")
    registry = load_overlay(tmp_path, text)
    assert decide(registry, env={"AITER_BF16_FP8_MOE_BOUND": "not a number"}).rule == "gpt-oss.a16w4.gfx950"


def test_every_rule_of_the_book_says_why_and_where_it_is_known_from() -> None:
    assert all(entry.because and entry.evidence for entry in BOOK.rules.values())
    assert all(url.startswith("https://") for entry in BOOK.rules.values() for url in entry.evidence)


NOTHING = """rules:
  none.int4:
    when: {model: openai/gpt-oss-120b, arch: gfx950, activation_dtype: fp4x2, tp: 7}
    use: null
    because: seven ranks were never tried
    evidence: [https://example.com/seven]
"""


def test_a_rule_may_say_that_nothing_works(tmp_path: Path) -> None:
    registry = load_overlay(tmp_path, NOTHING)
    with pytest.raises(NoRecipeError) as caught:
        decide(registry, activation_dtype="fp4x2", tp=7)
    assert "seven ranks were never tried (rule none.int4)" in caught.value.message
    assert caught.value.rule == "none.int4"
    assert "evidence: https://example.com/seven" in str(caught.value)
    assert caught.value.nearest
    assert decide(registry, activation_dtype="fp4x2", tp=2).recipe == "mxfp4.sep16"
    explained = registry.explain(Query.parse({**GPT_OSS, "activation_dtype": "fp4x2", "tp": 7}))
    first = explained.rules[0]
    assert (first.rule, first.recipe, first.outcome) == ("none.int4", None, "nothing works")
    assert explained.rules[1].outcome == "less specific"


def test_a_rule_without_use_does_not_load(tmp_path: Path) -> None:
    with pytest.raises(BookError, match=r"use: missing"):
        load_overlay(tmp_path, NOTHING.replace("    use: null\n", ""))


@pytest.mark.parametrize(
    ("when", "version", "engine_since"),
    [
        ({"arch": "gfx950"}, "aiter", None),
        ({"arch": "gfx950", "engine": None}, "aiter", None),
        ({"arch": "gfx950", "engine": "vllm"}, "engine_version", "0.1.14"),
    ],
)
def test_releases_are_the_engines_else_aiters(when: dict[str, object], version: str, engine_since: str | None) -> None:
    released = Rule.model_validate({"id": "a", "when": when, "since": "0.1.14", "until": "0.1.20", **WHY})
    assert released.conditions()[version].text == "<0.1.20"
    assert set(released.conditions()) == {*when, version}
    assert released.engine_since == engine_since
    with pytest.raises(ValueError, match="give the last release once"):
        Rule.model_validate({"id": "a", "when": {**when, version: ">=0.1"}, "until": "0.1.20", **WHY})
