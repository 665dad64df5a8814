"""What ATOM does with expert weights, path by path: for each the query, and everything that the book answers."""

import pytest

from preshuffle.registry import NoRecipeError, Query
from preshuffle.registry.resolve.observation_of import observation_of
from support.book.decision_summary import call_of, described
from support.book.engine_table import Case, read_table
from support.book.strategies import BOOK, REGISTRY

CASES = read_table("book_atom")
ANSWERED = [case for case in CASES if case.recipe]
REFUSED = [case for case in CASES if case.nothing_works]
RULES = {id: rule for id, rule in BOOK.rules.items() if rule.when.get("engine") == "atom"}


@pytest.mark.parametrize("case", ANSWERED, ids=str)
def test_the_book_says_what_the_engine_does(case: Case) -> None:
    decision = REGISTRY.resolve(Query.parse({**case.query, "tokens": [1, 4096]}))
    assert (decision.recipe, decision.rule) == (case.recipe, case.rule)
    assert described(decision) == case.tensors
    assert call_of(decision) == case.call
    assert decision.env == case.env
    assert [words for words in case.reason if words not in decision.reason] == []
    if "load balancing" not in case.id:  # ATOM switches Triton off there, whatever its switch says
        assert [finding.code for finding in decision.findings if finding.severity == "error"] == [*case.findings]


@pytest.mark.parametrize("case", [case for case in ANSWERED if "load balancing" not in case.id], ids=str)
def test_who_follows_the_book_is_told_nothing_is_wrong(case: Case) -> None:
    units = {"gfx942": 304, "gfx950": 256, "gfx1250": 256}[case.query["arch"]]
    query = Query.parse({**case.query, "tokens": [1, 4096], "cu_num": units})
    report = REGISTRY.check(observation_of(REGISTRY.resolve(query), query))
    assert [finding.code for finding in report.findings if finding.severity == "error"] == [*case.findings]


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_cannot_work_is_refused_in_words(case: Case) -> None:
    with pytest.raises(NoRecipeError) as caught:
        REGISTRY.resolve(Query.parse(case.query))
    assert [words for words in case.nothing_works if words not in str(caught.value)] == []
    assert caught.value.evidence


def test_every_path_has_a_case() -> None:
    assert {case.row for case in CASES} == {*(f"A{number}" for number in range(1, 13)), "none"}


def test_every_rule_and_every_recipe_of_the_engine_is_reached() -> None:
    assert {case.rule for case in ANSWERED} == {id for id, rule in RULES.items() if rule.use is not None}
    assert {case.recipe for case in ANSWERED} == {id for id in BOOK.recipes if id.startswith("atom.")}
    refusals = {words for case in REFUSED for words in case.nothing_works}
    assert {id for id, rule in RULES.items() if rule.use is None} == {
        words.removeprefix("(rule ").removesuffix(")") for words in refusals if words.startswith("(rule ")
    }


@pytest.mark.parametrize("aiter", ["0.1.7", "0.1.13", "0.1.16", "0.1.18"])
def test_an_old_aiter_ends_in_a_refusal_and_not_on_another_path(aiter: str) -> None:
    """What ATOM's switches name is what ATOM runs; a path that needs a newer AITER fails, and no other takes over."""
    refused = 0
    for case in ANSWERED:
        try:
            decision = REGISTRY.resolve(Query.parse({**case.query, "aiter": aiter, "tokens": [1]}))
        except NoRecipeError:
            refused += 1
        else:
            assert decision.recipe == case.recipe, case.id
    assert refused


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("itlv", ["0", "1"])
def test_gpt_oss_through_every_tensor_parallel_size(itlv: str, tp: int) -> None:
    """ATOM cuts values: at TP 4 and 8 a rank begins inside a group of 32, and its scales are another rank's."""
    query = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "engine": "atom", "tp": tp, "tokens": [1]}
    decision = REGISTRY.resolve(Query.parse({**query, "env": {"ATOM_MOE_GU_ITLV": itlv}}))
    padded = {1: 3072, 2: 1536, 4: 768, 8: 512}[tp]
    assert decision.tensors["w13_weight"].physical_shape == (128, 2 * padded, 3072)
    assert decision.tensors["w2_weight"].physical_shape == (128, 3072, padded)
    assert decision.tensors["w2_bias"].rank0_only
    cut = [finding.message for finding in decision.findings if finding.code == "scale_shape"]
    assert bool(cut) == (tp in (4, 8))
    assert all("through a group of 32" in message for message in cut)


@pytest.mark.parametrize("itlv", ["0", "1"])
def test_one_switch_and_three_kinds_of_experts(itlv: str) -> None:
    """ATOM_MOE_GU_ITLV moves MXFP4 only: MXFP8 always alternates, fp8 in blocks never does."""
    fields = {"model": "acme/moe", "arch": "gfx950", "engine": "atom", "activation": "Silu", "activation_dtype": "fp8"}
    sizes = {"hidden_size": 512, "intermediate_size": 512, "num_experts": 4, "top_k": 2, "bias": False}
    kinds = {"fp4x2": "per_1x32", "fp8": "per_1x32", "fp8 in blocks": "per_1x128"}
    modes = {
        kind: REGISTRY.resolve(
            Query.parse(
                {**fields, **sizes, "gate_up_order": "GGUU", "weight_dtype": kind.split()[0], "quant_type": quant}
                | {"env": {"ATOM_MOE_GU_ITLV": itlv}, "tokens": [1]}
            )
        ).call.gate_mode
        for kind, quant in kinds.items()
    }
    assert modes == {
        "fp4x2": "interleave" if itlv == "1" else "separated",
        "fp8": "interleave",
        "fp8 in blocks": "separated",
    }
