"""JSON Schema of a book file, for editors."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from preshuffle.registry.entries import FIELDS, Rule
from preshuffle.registry.loading import SECTIONS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


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
