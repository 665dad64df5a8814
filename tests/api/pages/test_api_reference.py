"""The API reference: fields have the meaning that the docstring of their type gives them."""

from __future__ import annotations

import pytest

from preshuffle.api.pages.api_reference import reference, split_attributes


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("One node.", ("One node.", {})),
        (
            "One.\n\nAttributes:\n    a: its\n        own.\n    b: days.\n\nMore.",
            ("One.\n\nMore.", {"a": "its own.", "b": "days."}),
        ),
        ("One.\n\nAttributes:\n    a: last.", ("One.", {"a": "last."})),
        ("One.\n\nAttributes:\n    no attribute", ("One.", {})),
    ],
)
def test_attributes_are_taken_out_of_a_docstring(description: str, expected: tuple[str, dict[str, str]]) -> None:
    assert split_attributes(description) == expected


def test_a_field_s_own_description_counts_before_the_docstring_s() -> None:
    properties = {"a": {"type": "string"}, "b": {"type": "string", "description": "its own"}}
    node = {"description": "One.\n\nAttributes:\n    a: of a.\n    b: of b.", "properties": properties}
    document = {"paths": {}, "info": {"description": ""}, "components": {"schemas": {"Node": node}}}
    (schema,) = reference(document).schemas
    assert [(row.name, row.description) for row in schema.fields] == [("a", "of a."), ("b", "its own")]
