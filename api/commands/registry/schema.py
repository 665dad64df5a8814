"""JSON Schemas of book files, and of all inputs.

Inputs are what commands and the service read.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic.json_schema import models_json_schema

from preshuffle.api.commands.options.failures import UsageError
from preshuffle.api.fleet import INPUT_FORMS, input_schema
from preshuffle.registry.entries import FIELDS, Rule
from preshuffle.registry.loading import SECTIONS

SCHEMAS: Final = ("book", *INPUT_FORMS)
"""What has a schema."""
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(what: str) -> dict[str, Any]:
    """Return the schema of one of ``SCHEMAS``."""
    return input_schema(what) if what in INPUT_FORMS else book_schema()


def example_of(what: str) -> dict[str, Any]:
    """Return an example of an input.

    Raises:
        UsageError: the book is meant, which ``registry new`` has skeletons of.
    """
    if what not in INPUT_FORMS:
        raise UsageError(f"registry schema: no example of a {what}; preshuffle registry new writes one entry of it")
    return dict(INPUT_FORMS[what].example)


def book_schema() -> dict[str, Any]:
    """Return the schema.

    An entry's id is its key, so that no entry has an ``id`` field.
    """
    models = [(model, "validation") for model in SECTIONS.values()]
    _, schema = models_json_schema(models, ref_template="#/$defs/{model}")  # type: ignore[arg-type]
    definitions: dict[str, Any] = schema["$defs"]
    for model in SECTIONS.values():
        entry = definitions[model.__name__]
        entry["properties"].pop("id")
        entry["required"] = [name for name in entry.get("required", []) if name != "id"]
    definitions[Rule.__name__]["properties"]["when"]["propertyNames"] = {"enum": list(FIELDS)}
    return {
        "$schema": _DIALECT,
        "title": "preshuffle book",
        "description": "One file of a registry's book: sections of entries by id. Overlays add or replace entries.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            section: {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{model.__name__}"}}
            for section, model in SECTIONS.items()
        },
        "$defs": definitions,
    }
