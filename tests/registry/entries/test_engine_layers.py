"""Entries of engines' layers: what a conversion may say."""

from __future__ import annotations

from typing import Any

import pytest

from preshuffle.registry import Registry
from preshuffle.registry.base.errors import PlacedError
from preshuffle.registry.entries import ConversionFacts

GIVEN: dict[str, Any] = {
    "versions": ["1.0"],
    "classes": {"acme.moe": ["Method", "Other"]},
    "load": "acme.loader.load",
    "config": "acme.config.current",
    "name": "layer_name",
}


def test_a_conversion_names_a_method_by_default() -> None:
    facts = ConversionFacts(**GIVEN, replaceable=["Other"])
    assert facts.function == "process_weights_after_loading"
    assert facts.name.paths == ("layer_name",)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"replaceable": ["Method", "Third"]}, "'Third' is none of the classes; valid: Method, Other"),
        ({"versions": []}, "at least 1 item"),
        ({"classes": {}}, "at least 1 item"),
        ({"load": "acme.loader:load"}, "should match pattern"),
    ],
)
def test_a_wrong_conversion_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises((PlacedError, ValueError), match=text):
        ConversionFacts(**{**GIVEN, **fields})


def test_replaceable_methods_of_the_book_are_known_to_its_entries() -> None:
    for entry in Registry.default().book.entries["engine_layers"].values():
        known = {name for method in entry.methods for name in method.classes}
        assert {name for names in entry.conversion.classes.values() for name in names} <= known
