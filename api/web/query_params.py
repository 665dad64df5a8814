"""Queries as GET parameters: ``engine=vllm@0.33.0``, repeated ``env=K=V``, ``tokens=1,64``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.values.query import Query

FIELDS: Final = tuple(Query.model_fields)
_MEANING: Final = re.compile(r"^ +(\w+): (.+)$", re.MULTILINE)
"""A field's line among the attributes of a docstring."""
_VERSION: Final = {"type": "string", "examples": ["0.1.20.post1"]}


def parse_params(items: Sequence[tuple[str, str]]) -> Query:
    """Read a query from decoded parameters.

    Raises:
        QueryError: an unknown parameter, one given twice, or a value that the field cannot have.

    Example:
        >>> parse_params([("model", "m"), ("arch", "gfx950"), ("env", "A=1"), ("tokens", "1,64")]).tokens
        (1, 64)
    """
    values: dict[str, Any] = {}
    problems: list[FieldProblem] = []
    for name, text in items:
        if name not in FIELDS:
            problems.append(FieldProblem(name, "unknown parameter", FIELDS))
        elif name == "env":
            key, equals, value = text.partition("=")
            if not key or not equals:
                problems.append(FieldProblem("env", f"{text!r} sets nothing", ("NAME=value",)))
            elif key in values.setdefault("env", {}):
                problems.append(FieldProblem("env", f"{key} is set twice"))
            else:
                values["env"][key] = value
        elif name in values:
            problems.append(FieldProblem(name, "given twice"))
        else:
            values[name] = text.split(",") if name == "tokens" else text
    if problems:
        raise QueryError(problems)
    return Query.parse(values)


def documented() -> list[dict[str, Any]]:
    """Return the parameters for the OpenAPI document, from the query's own schema."""
    schema = Query.model_json_schema()
    meanings = dict(_MEANING.findall(schema["description"]))
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema["required"],
            "description": meanings.get(name, ""),
            **_described(name, schema["properties"][name]),
        }
        for name in FIELDS
    ]


def _described(name: str, field: dict[str, Any]) -> dict[str, Any]:
    if name == "env":
        items = {"type": "string", "pattern": "^[^=]+=", "examples": ["VLLM_ROCM_USE_AITER=1"]}
        return {"schema": {"type": "array", "items": items}, "explode": True, "description": "NAME=value, repeated"}
    if name == "tokens":
        return {"schema": {"type": "string", "examples": ["1,64"]}, "description": "token counts, commas between them"}
    if name == "engine":
        schema = {"type": "string", "minLength": 1, "examples": ["vllm@0.33.0"]}
        return {"schema": schema, "description": "name or name@version"}
    if name in {"aiter", "rocm"}:
        return {"schema": _VERSION, "description": "a version as PEP 440 writes it"}
    if name == "aiter_features":
        schema = {"type": "string", "examples": ["gate_mode,!situv2"]}
        return {"schema": schema}
    options = [option for option in field.get("anyOf", [field]) if option.get("type") != "null"]
    return {"schema": {key: value for key, value in options[0].items() if key not in {"title", "default"}}}
