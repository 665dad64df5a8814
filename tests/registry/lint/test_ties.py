"""Ties are found by splitting; what is found is what comparing every two rules finds."""

from itertools import combinations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from preshuffle.registry import Rule
from preshuffle.registry.lint.ties import can_both_match, ties
from support.computing import computed_within

MODELS = st.sampled_from(["a", "b", ["a", "b"], ["b", "c"], "a*", "*b"])
ARCHS = st.sampled_from(["gfx950", "gfx942", ["gfx950", "gfx1250"]])
RANKS = st.sampled_from([1, 2, [1, 2], [2, 4], ">=2", "<4"])
VERSIONS = st.sampled_from(["0.1.14", "0.1.14.0", ">=0.1.14", ["0.1.13", "0.1.14"]])
SWITCHES = st.fixed_dictionaries({}, optional={"A": st.sampled_from(["0", "1", None]), "B": st.just("1")})
WHENS = st.fixed_dictionaries(
    {}, optional={"model": MODELS, "arch": ARCHS, "tp": RANKS, "aiter": VERSIONS, "env": SWITCHES, "engine": MODELS}
)


def rule(id: str, when: dict[str, Any], priority: int = 0) -> Rule:
    return Rule.model_validate({"id": id, "when": when, "use": None, "because": "a test", "priority": priority})


@given(st.lists(WHENS, min_size=2, max_size=40))
def test_splitting_finds_what_comparing_all_finds(whens: list[dict[str, Any]]) -> None:
    rules = [rule(f"r{number}", when) for number, when in enumerate(whens)]
    expected = {
        frozenset((first.id, second.id))
        for first, second in combinations(rules, 2)
        if first.specificity == second.specificity and can_both_match(first, second)
    }
    found = [frozenset((first.id, second.id)) for first, second in ties(rules)]
    assert set(found) == expected
    assert len(found) == len(expected)


def test_three_thousand_rules_are_not_compared_each_with_each() -> None:
    whens = ({"model": f"m{number // 2}", "engine": "ab"[number % 2], "arch": ["gfx950"]} for number in range(3_000))
    rules = [rule(f"r{number}", when) for number, when in enumerate(whens)]
    assert computed_within(3, lambda: list(ties(rules)), "each with each would take half a minute") == []
