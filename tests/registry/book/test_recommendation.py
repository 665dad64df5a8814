"""What the book recommends where no engine is named: every quantization that AITER has kernels for, on every GPU."""

from typing import Any

import pytest

from preshuffle.registry import NoRecipeError, Query
from preshuffle.registry.resolve.observation_of import observation_of
from support.book.decision_summary import call_of, described
from support.book.engine_table import Case, read_table
from support.book.strategies import BOOK, REGISTRY

CASES = read_table("book_recommendation")
ANSWERED = [case for case in CASES if case.recipe]
REFUSED = [case for case in CASES if case.nothing_works]
TOKENS = {"tokens": [1, 255, 256, 16384]}
KNOWN_BAD = {"gpt-oss at TP 1 on an old AITER"}  # AITER 0.1.16 has other listed faults


def query_of(case: Case, **fields: Any) -> Query:
    units = {} if case.query["arch"] != "gfx942" else {"cu_num": 304}
    return Query.parse({**case.query, **TOKENS, **units, **fields})


@pytest.mark.parametrize("case", ANSWERED, ids=str)
def test_the_recommendation(case: Case) -> None:
    decision = REGISTRY.resolve(query_of(case))
    assert (decision.recipe, decision.rule) == (case.recipe, case.rule)
    assert described(decision) == case.tensors
    assert call_of(decision) == case.call
    assert decision.env == case.env
    assert [words for words in case.reason if words not in decision.reason] == []


@pytest.mark.parametrize("case", ANSWERED, ids=str)
def test_every_kernel_at_every_token_count_reads_what_is_recommended(case: Case) -> None:
    """AITER's own dispatch finds a kernel at each token count, and none of them reads other bytes."""
    decision = REGISTRY.resolve(query_of(case))
    assert [finding for finding in decision.findings if finding.severity == "error"] == []
    assert len(decision.kernels) == len(TOKENS["tokens"])
    assert [bucket.error for bucket in decision.kernels if bucket.error] == []
    for bucket in decision.kernels:
        assert bucket.stage1 is not None
        assert bucket.stage1.reads or bucket.stage1.func == "fused_moe_1stage"


@pytest.mark.parametrize("case", [case for case in ANSWERED if case.id not in KNOWN_BAD], ids=str)
def test_who_follows_the_recommendation_is_told_nothing_is_wrong(case: Case) -> None:
    query = query_of(case)
    report = REGISTRY.check(observation_of(REGISTRY.resolve(query), query))
    assert [(finding.code, finding.message) for finding in report.findings if finding.severity == "error"] == []


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_where_nothing_works_the_reason_is_told(case: Case) -> None:
    with pytest.raises(NoRecipeError) as caught:
        REGISTRY.resolve(query_of(case))
    assert [words for words in case.nothing_works if words not in str(caught.value)] == []
    assert caught.value.evidence


def test_every_general_recipe_is_recommended_somewhere() -> None:
    refused = {words for case in REFUSED for words in case.nothing_works}
    for id, rule in BOOK.rules.items():
        if rule.when.get("engine", "") is None and "model" not in rule.when and rule.use is not None:
            assert id in {case.rule for case in ANSWERED}
        if id.endswith(".no-kernel") and not id.startswith(("atom.", "vllm.", "sglang.")):
            assert f"(rule {id})" in refused
    named = ("atom.", "vllm.", "sglang.")
    assert {case.recipe for case in ANSWERED} == {id for id in BOOK.recipes if not id.startswith(named)}


def test_deepseek_v4_has_two_valid_recipes_and_says_when() -> None:
    fields = {"model": "deepseek-ai/DeepSeek-V4-Pro", "arch": "gfx950", "tp": 8, "tokens": [1]}
    wide, narrow = (REGISTRY.resolve(Query.parse({**fields, "activation_dtype": dtype})) for dtype in ("fp8", "fp4x2"))
    assert (wide.recipe, narrow.recipe) == ("mxfp4.gui16.silu", "mxfp4.sep16.silu")
    for chosen, other in ((wide, narrow), (narrow, wide)):
        (why,) = [alternative.why_not for alternative in chosen.alternatives if alternative.recipe == other.recipe]
        assert BOOK.recipes[other.recipe].validity in why
    assert chosen.tensors["w2_weight_scale"].physical_shape[1] == 16, "12 groups, padded at the flat tail"
    assert chosen.tensors["w2_weight"].pad.k == 0
