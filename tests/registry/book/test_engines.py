"""What vLLM and SGLang do with MoE weights, method by method: for each the query, and all that the book answers."""

import pytest

from preshuffle.registry import NoRecipeError, Query
from support.book.decision_summary import call_of, described
from support.book.engine_table import Case, read_table
from support.book.strategies import BOOK, REGISTRY

METHODS = {"vllm": "V", "sglang": "S"}
CASES = {engine: read_table(f"book_{engine}") for engine in METHODS}
ALL = [case for cases in CASES.values() for case in cases]
each_engine = pytest.mark.parametrize("engine", METHODS)


@pytest.mark.parametrize("case", [case for case in ALL if case.recipe], ids=str)
def test_the_book_says_what_the_engine_does(case: Case) -> None:
    decision = REGISTRY.resolve(Query.parse({**case.query, "tokens": [1]}))
    assert (decision.recipe, decision.rule) == (case.recipe, case.rule)
    assert described(decision) == case.tensors
    assert call_of(decision) == case.call
    assert decision.env == case.env
    assert [item.code for item in decision.findings if item.code != "numerics_deviation"] == [*case.findings]
    assert [words for words in case.reason if words not in decision.reason] == []


@pytest.mark.parametrize("case", [case for case in ALL if case.nothing_works], ids=str)
def test_what_cannot_work_is_refused_in_words(case: Case) -> None:
    with pytest.raises(NoRecipeError) as caught:
        REGISTRY.resolve(Query.parse(case.query))
    assert [words for words in case.nothing_works if words not in str(caught.value)] == []


@each_engine
def test_every_method_has_a_case(engine: str) -> None:
    assert {case.row for case in CASES[engine]} == {f"{METHODS[engine]}{number}" for number in range(1, 15)}


@each_engine
def test_every_rule_and_every_recipe_of_the_engine_is_reached(engine: str) -> None:
    mine = {rule.id: rule for rule in BOOK.rules.values() if rule.when.get("engine") == engine}
    answered = [case for case in CASES[engine] if case.recipe]
    assert {case.rule for case in answered} == {id for id, rule in mine.items() if rule.use is not None}
    assert {case.recipe for case in answered} == {id for id in BOOK.recipes if id.startswith(f"{engine}.")}


@each_engine
def test_every_refusal_is_reached(engine: str) -> None:
    refusing = {id for id, rule in BOOK.rules.items() if rule.use is None and rule.when.get("engine") == engine}
    found: set[str] = set()
    for case in [case for case in CASES[engine] if case.nothing_works]:
        with pytest.raises(NoRecipeError) as caught:
            REGISTRY.resolve(Query.parse(case.query))
        found |= {id for id in refusing if f"(rule {id})" in str(caught.value)}
    assert found == refusing
