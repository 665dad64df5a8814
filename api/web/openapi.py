"""OpenAPI document: request bodies that routes parse themselves, and problems."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from preshuffle.api.web.problem import KINDS, PROBLEM_TYPE, Problem

_REF: Final = "#/components/schemas/{model}"
DESCRIPTION: Final = """\
In which byte order must a model's expert weights, scales and biases lie, which AITER kernel will read them,
and is that what a deployment did? Every error is application/problem+json; tell errors apart by their type.
"""


def problems(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI ``responses`` of these kinds of problem."""
    by_status: dict[int | str, list[str]] = {}
    for kind in (*kinds, "internal"):
        by_status.setdefault(KINDS[kind][0], []).append(KINDS[kind][1])
    schema = {"$ref": _REF.format(model=Problem.__name__)}
    return {
        status: {"description": "; ".join(titles), "content": {PROBLEM_TYPE: {"schema": schema}}}
        for status, titles in by_status.items()
    }


BODY_PROBLEMS: Final = (
    "malformed-json",
    "json-too-deep",
    "request-timeout",
    "body-too-large",
    "unsupported-media-type",
    "invalid-input",
)
STORE_PROBLEMS: Final = ("store-unavailable", "store-full", "quota-exceeded")


def json_body(model: type[BaseModel], example: Any, *others: type[BaseModel]) -> dict[str, Any]:
    """Return ``openapi_extra`` for a body of one of the models."""
    references = [{"$ref": _REF.format(model=one.__name__)} for one in (model, *others)]
    schema = {"anyOf": references} if others else references[0]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}}


def if_match(verb: str) -> dict[str, Any]:
    """Return the OpenAPI parameter of an optional ``If-Match``.

    ``verb`` is what it allows.
    """
    return {
        "name": "If-Match",
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": f"{verb} it only where this is still its ETag; * where there is one at all",
    }


def install(app: FastAPI, models: list[type[BaseModel]], root: str = "") -> None:
    """Add models and root path to the document, built on first request."""
    servers = [{"url": root}] if root else None

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes, servers=servers
            )
            wanted: list[type[BaseModel]] = [*models, Problem]
            _, definitions = models_json_schema([(model, "validation") for model in wanted], ref_template=_REF)
            document.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
