"""API reference, read from the service's OpenAPI document.

Everything on the page comes from that document: no script, style or font of another host is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Final

_ATTRIBUTE: Final = re.compile(r" {4}(\w+): (.*)")
"""First line of an attribute in a docstring; what follows is indented further."""


@dataclass(frozen=True, slots=True)
class Row:
    """A parameter of an operation, or a field of a schema."""

    name: str
    type: str
    required: bool
    where: str
    description: str
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    ident: str
    method: str
    path: str
    summary: str
    parameters: tuple[Row, ...]
    body: Row | None
    example: str
    responses: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Schema:
    """A type of a request or response body."""

    name: str
    description: str
    fields: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """All operations by tag, and all types."""

    description: str
    tags: tuple[tuple[str, tuple[Operation, ...]], ...]
    schemas: tuple[Schema, ...]


def reference(document: Mapping[str, Any]) -> Reference:
    """Read an OpenAPI document."""
    by_tag: dict[str, list[Operation]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag.setdefault(operation["tags"][0], []).append(_operation(path, method, operation))
    schemas = document["components"]["schemas"]
    return Reference(
        description=document["info"]["description"],
        tags=tuple((tag, tuple(operations)) for tag, operations in by_tag.items()),
        schemas=tuple(_schema(name, schemas[name]) for name in sorted(schemas)),
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Operation:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return Operation(
        ident=operation["operationId"],
        method=method.upper(),
        path=path,
        summary=operation["summary"],
        parameters=tuple(_parameter(parameter) for parameter in operation.get("parameters", ())),
        body=_row("body", content["schema"], True, "body") if content else None,
        example=json.dumps(content["example"], indent=2) if content and "example" in content else "",
        responses=tuple(_responses(operation["responses"])),
    )


def _parameter(parameter: Mapping[str, Any]) -> Row:
    row = _row(parameter["name"], parameter["schema"], parameter["required"], parameter["in"])
    return Row(row.name, row.type, row.required, row.where, parameter.get("description", row.description), row.link)


def _responses(responses: Mapping[str, Any]) -> Iterator[Row]:
    for status, response in sorted(responses.items()):
        content = next(iter(response.get("content", {}).values()), None)
        row = _row(status, content.get("schema", {}) if content else {}, True, "")
        yield Row(status, row.type if content else "", True, "", response["description"], row.link)


def _schema(name: str, schema: Mapping[str, Any]) -> Schema:
    required = set(schema.get("required", ()))
    description, meanings = split_attributes(schema.get("description", ""))
    rows = [_row(field, value, field in required, "") for field, value in schema.get("properties", {}).items()]
    fields = tuple(replace(row, description=row.description or meanings.get(row.name, "")) for row in rows)
    return Schema(name, description, fields)


def split_attributes(description: str) -> tuple[str, dict[str, str]]:
    """Split a docstring into its text and the meaning of each attribute.

    Example:
        >>> split_attributes("One node.\\n\\nAttributes:\\n    name: its\\n        own.\\n    age: days.\\n\\nMore.")
        ('One node.\\n\\nMore.', {'name': 'its own.', 'age': 'days.'})
    """
    before, title, rest = description.partition("\nAttributes:\n")
    lines = rest.splitlines()
    block = list(takewhile(lambda line: not line.strip() or line.startswith("    "), lines))
    meanings: dict[str, str] = {}
    name = ""
    for line in block:
        if found := _ATTRIBUTE.fullmatch(line):
            name = found[1]
            meanings[name] = found[2]
        elif name and line.strip():
            meanings[name] += f" {line.strip()}"
    after = "\n".join(lines[len(block) :])
    return ("\n\n".join(filter(None, (before.strip(), after))), meanings) if title else (description, {})


def _row(name: str, schema: Mapping[str, Any], required: bool, where: str) -> Row:
    return Row(name, _type(schema), required, where, schema.get("description", ""), _link(schema))


def _link(schema: Mapping[str, Any]) -> str | None:
    """Return the first type of the document that a schema refers to."""
    for value in (schema, schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", ())):
        if isinstance(value, Mapping) and "$ref" in value:
            return str(value["$ref"]).rsplit("/", 1)[-1]
        if isinstance(value, Mapping) and value is not schema and (inner := _link(value)):
            return inner
    return None


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"[{_type(schema.get('items', {}))}]"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"{{name: {_type(schema['additionalProperties'])}}}"
    return str(kind)
