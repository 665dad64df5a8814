"""``/v1/schemas``: JSON Schemas of what clients send, with examples."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from starlette.responses import Response

from preshuffle.api.fleet import INPUT_FORMS, input_schema
from preshuffle.api.web import ProblemError, problems
from preshuffle.registry.base.frozen import Frozen

TAGS: Final[list[str | Enum]] = ["schemas"]
SCHEMA_TYPE: Final = "application/schema+json"


class SchemaLink(Frozen):
    """One schema: what it describes, and where it is."""

    name: str
    title: str
    path: str


class SchemaList(Frozen):
    """All schemas."""

    schemas: tuple[SchemaLink, ...]


def router(root: str = "") -> APIRouter:
    """Return the routes; paths in their answers begin with the root path."""
    routes = APIRouter()

    @routes.get(
        "/v1/schemas",
        tags=TAGS,
        operation_id="schemas",
        summary="JSON Schemas of queries, observations and replica reports",
        response_model=SchemaList,
        responses=problems(),
    )
    async def listing() -> SchemaList:
        links = [SchemaLink(name=name, title=form.title, path=f"{root}/v1/schemas/{name}") for name, form in _FORMS]
        return SchemaList(schemas=tuple(links))

    @routes.get(
        "/v1/schemas/{name}",
        tags=TAGS,
        operation_id="schema",
        summary="One JSON Schema, its example included",
        response_class=Response,
        responses={200: {"content": {SCHEMA_TYPE: {"schema": _ANY_OBJECT}}}, **problems("unknown-schema")},
    )
    async def schema(name: Annotated[str, Path(examples=["observation"])]) -> Response:
        if name not in INPUT_FORMS:
            raise ProblemError("unknown-schema", f"no schema is called {name!r}; valid: {', '.join(INPUT_FORMS)}")
        return Response(json.dumps(input_schema(name)), media_type=SCHEMA_TYPE)

    return routes


_FORMS: Final = tuple(INPUT_FORMS.items())
_ANY_OBJECT: Final[dict[str, Any]] = {"type": "object"}
