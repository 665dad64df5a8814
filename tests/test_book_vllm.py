"""What vLLM does with MoE weights, method by method: for each the query, and everything that the book answers."""

import pytest

from preshuffle.registry import NoRecipeError, Query
from support.described import call_of, described
from support.engine_table import Case, read_table
from support.strategies import BOOK, REGISTRY

CASES = read_table("book_vllm")
ANSWERED = [case for case in CASES if case.recipe]
REFUSED = [case for case in CASES if case.nothing_works]


@pytest.mark.parametrize("case", ANSWERED, ids=str)
def test_the_book_says_what_the_engine_does(case: Case) -> None:
    decision = REGISTRY.resolve(Query.parse({**case.query, "tokens": [1]}))
    assert (decision.recipe, decision.rule) == (case.recipe, case.rule)
    assert described(decision) == case.tensors
    assert call_of(decision) == case.call
    assert decision.env == case.env
    assert [item.code for item in decision.findings if item.code != "numerics_deviation"] == [*case.findings]
    assert [words for words in case.reason if words not in decision.reason] == []


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_cannot_work_is_refused_in_words(case: Case) -> None:
    with pytest.raises(NoRecipeError) as caught:
        REGISTRY.resolve(Query.parse(case.query))
    assert [words for words in case.nothing_works if words not in str(caught.value)] == []


def test_every_method_has_a_case() -> None:
    assert {case.row for case in CASES} == {f"V{number}" for number in range(1, 15)}


def test_every_rule_and_every_recipe_of_the_engine_is_reached() -> None:
    mine = {rule.id: rule for rule in BOOK.rules.values() if rule.when.get("engine") == "vllm"}
    answering = {id for id, rule in mine.items() if rule.use is not None}
    assert {case.rule for case in ANSWERED} == answering
    assert {case.recipe for case in ANSWERED} == {id for id in BOOK.recipes if id.startswith("vllm.")}


def test_every_refusal_is_reached() -> None:
    refusing = {id for id, rule in BOOK.rules.items() if rule.use is None and rule.when.get("engine") == "vllm"}
    found: set[str] = set()
    for case in REFUSED:
        with pytest.raises(NoRecipeError) as caught:
            REGISTRY.resolve(Query.parse(case.query))
        found |= {id for id in refusing if f"(rule {id})" in str(caught.value)}
    assert found == refusing
