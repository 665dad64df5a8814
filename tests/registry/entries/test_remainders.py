"""Conditions on the remainder of a size, by a number or by the ranks."""

from typing import Any

import pytest

from preshuffle.registry.entries import FactCondition


@pytest.mark.parametrize(
    ("name", "wanted", "facts", "holds"),
    [
        ("intermediate_size % tp", ">0", {"intermediate_size": 2880, "tp": 7}, True),
        ("intermediate_size % tp", ">0", {"intermediate_size": 2880, "tp": 8}, False),
        ("intermediate_size % tp", 0, {"intermediate_size": 2880, "tp": 8}, True),
        ("num_experts % ep", [1, 3], {"num_experts": 7, "ep": 4}, True),
        ("intermediate_size % tp", ">0", {"intermediate_size": 2880}, False),
        ("intermediate_size % tp", 0, {"intermediate_size": 2880, "tp": None}, False),
        ("intermediate_size % tp", 0, {"tp": 8}, False),
        ("inter_dim % 256", ">0", {"inter_dim": 2880}, True),
        ("inter_dim % 256", ">0", {}, False),
    ],
)
def test_a_remainder_holds_where_both_are_known(name: str, wanted: Any, facts: dict[str, Any], holds: bool) -> None:
    assert FactCondition.parse(name, wanted).holds(facts) is holds


@pytest.mark.parametrize(
    ("name", "facts"), [("tp", ("tp",)), ("inter_dim % 64", ("inter_dim",)), ("top_k % dp", ("top_k", "dp"))]
)
def test_it_is_about_each_fact_that_it_names(name: str, facts: tuple[str, ...]) -> None:
    assert FactCondition.parse(name, ">0").facts == facts


@pytest.mark.parametrize(
    "name", ["inter_dim % 1", "inter_dim % tp", "tokens % dp", "model % tp", "tp % hidden_size", "tp % x"]
)
def test_what_cannot_be_in_a_remainder_is_told(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"a remainder needs a fact that counts and a modulus above 1 or, .* one of dp, ep, tp"
    ):
        FactCondition.parse(name, 0)
