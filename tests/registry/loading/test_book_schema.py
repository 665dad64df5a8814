"""Editors complete and check the book's files: each names the JSON Schema that is shipped beside it."""

import json
from importlib.resources import files

import pytest

from preshuffle.api.commands.registry.schema import book_schema
from preshuffle.registry.loading.load import OTHER_SCHEMA

BOOK = files("preshuffle.registry") / "book"
FILES = sorted(item.name for item in BOOK.iterdir() if item.name.endswith(".yaml") and item.name not in OTHER_SCHEMA)


def test_the_shipped_schema_is_that_of_the_code() -> None:
    shipped = json.loads((BOOK / "schema.json").read_text(encoding="utf-8"))
    assert shipped == book_schema(), "run: preshuffle registry schema > registry/book/schema.json"


@pytest.mark.parametrize("name", FILES)
def test_every_file_names_it_in_its_first_line(name: str) -> None:
    first = (BOOK / name).read_text(encoding="utf-8").partition("\n")[0]
    assert first == "# yaml-language-server: $schema=schema.json"
