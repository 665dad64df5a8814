"""The index finds what looking at every rule finds."""

import random
from dataclasses import replace
from typing import Any

import pytest

from preshuffle.registry import NoRecipeError, Query, QueryError, Registry, Rule
from preshuffle.registry.layer import layer_of
from preshuffle.registry.loading.book import Book
from preshuffle.registry.resolve.choose import alternatives, choose, choose_with_alternatives
from preshuffle.registry.resolve.match import try_rules
from preshuffle.registry.resolve.requirements import REQUIRED_OF
from support.book.strategies import BOOK, REGISTRY

FIELDS: dict[str, tuple[Any, ...]] = {
    "model": (*BOOK.models, "/models/gpt-oss-20b", "nobody/knows-this"),
    "arch": tuple(BOOK.archs),
    "engine": (None, "atom", "vllm", "vllm@0.14.0", "sglang@0.5.9", "tgi"),
    "activation_dtype": (None, "bf16", "fp4x2", "fp8"),
    "weight_dtype": (None, None, None, "fp4x2", "fp8", "bf16", "i4x2"),
    "tp": (1, 2, 8),
    "ep": (1, 1, 8),
    "aiter": (None, "0.1.13", "0.1.20"),
    "env": ({}, {}, {"ATOM_MOE_GU_ITLV": "1"}, {"SGLANG_USE_AITER_MOE_GU_ITLV": "0"}, {"VLLM_ROCM_USE_AITER": "1"}),
}


def queries(seed: int, number: int) -> list[Query]:
    draw = random.Random(seed)
    return [Query.parse({name: draw.choice(of) for name, of in FIELDS.items()}) for _ in range(number)]


def test_the_winner_is_that_of_looking_at_every_rule() -> None:
    winners = set()
    for query in queries(11, 250):
        facts = layer_of(query, BOOK).checked().rule_facts
        expected = next((item for item in try_rules(BOOK, facts) if item.usable), None)
        found, others = choose_with_alternatives(BOOK, facts)
        assert others == (alternatives(found, facts) if found else ())
        assert (found.winner.rule.id if found else None) == (expected.rule.id if expected else None), query
        winners.add(expected.rule.id if expected else None)
    assert len(winners) > 20


def test_what_is_remembered_by_is_what_recipes_look_at() -> None:
    assert {name for recipe in BOOK.recipes.values() for name in recipe.requires.multiples} <= set(REQUIRED_OF)


def test_what_was_near_is_for_the_same_subject() -> None:
    for query in queries(12, 100):
        facts = layer_of(query, BOOK).checked().rule_facts
        found = choose(BOOK, facts)
        for near in found.others if found else ():
            assert len(near.missed) <= 2
            assert all(not near.rule.conditions[name].matches(facts.get(name)) for name in near.missed)


@pytest.mark.parametrize(
    "when",
    [
        {"model": "acme/gpt-*", "engine": None},
        {"model": "*-turbo", "arch": "gfx950"},
        {"hidden_size": ">=4000", "engine": ["atom", "vllm"]},
        {"tp": 7},
        {"engine": "v*", "activation_dtype": "fp4x2"},
        {"deployment": "canary-*"},
        {},
    ],
)
def test_rules_of_globs_and_ranges_are_found(when: dict[str, Any]) -> None:
    rule = Rule.model_validate({"id": "mine", "when": when, "use": "mxfp4.sep16", "because": "a test"})
    book = replace(BOOK, entries={**BOOK.entries, "rules": {"mine": rule}})
    asked = {"model": "acme/gpt-turbo", "arch": "gfx950", "hidden_size": 4096, "tp": 7, "deployment": "canary-1"}
    for engine in (None, "atom", "vllm"):
        query = Query.parse({**asked, "engine": engine, "activation_dtype": "fp4x2"})
        facts = layer_of(query, book).checked().rule_facts
        matches = all(condition.matches(facts.get(name)) for name, condition in rule.conditions().items())
        assert (choose(book, facts) is not None) == matches


def winner(book: Book, query: Query) -> str | None:
    found = choose(book, layer_of(query, book).checked().rule_facts)
    return found.winner.rule.id if found else None


def test_removing_a_rule_changes_no_answer_that_it_did_not_give() -> None:
    asked = queries(14, 60)
    before = [winner(BOOK, query) for query in asked]
    draw = random.Random(13)
    for gone in draw.sample(sorted(BOOK.rules), 60):
        rules = {id: rule for id, rule in BOOK.rules.items() if id != gone}
        without = replace(BOOK, entries={**BOOK.entries, "rules": rules})
        for query, won in zip(asked, before, strict=True):
            assert won == gone or winner(without, query) == won
    for query, won in draw.sample(list(zip(asked, before, strict=True)), 8):
        rules = {id: rule for id, rule in BOOK.rules.items() if id == won or draw.random() < 0.5}
        without = replace(BOOK, entries={**BOOK.entries, "rules": rules})
        assert digest(Registry(without), query) == digest(REGISTRY, query) or won is None


def digest(registry: Registry, query: Query) -> str | None:
    try:
        return registry.resolve(query, kernels=False, nearest=False).decision_digest
    except (NoRecipeError, QueryError):
        return None
