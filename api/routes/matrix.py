"""``/v1/matrix``: which models resolve on which GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.answers import Answers, Matrices, ResponseCache, etag_of
from preshuffle.api.web import (
    IF_NONE_MATCH,
    NOT_MODIFIED,
    CachedResponse,
    DirectRoute,
    documented,
    in_turn,
    problems,
)
from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.matrix import Matrix

TAGS: Final[list[str | Enum]] = ["registry"]
MATRIX_PATH: Final = "/v1/matrix"
_MAX_TEXT: Final = 128
FIELDS: Final = {
    "engine": "name or name@version; left out: AITER's own recommendation",
    "aiter": "AITER's version; left out: the newest known",
    "tp": "tensor-parallel size; left out: 1",
    "model": "only models whose id has this in it",
    "arch": "only this GPU, by any of its names",
}
"""Parameters, and what each says."""


def router(answers: Answers, matrices: Matrices, cache: ResponseCache) -> APIRouter:
    """Return the route, which answers from a cache and fills it."""
    routes = APIRouter()

    async def get(request: Request) -> Response:
        registry = answers.registry
        fields = read_fields(request.query_params.multi_items())
        body = await in_turn(_serialise, matrices, fields)
        response = CachedResponse(body, etag_of(body))
        cache.store(request.scope["query_string"], response, registry)
        return await response.respond(request)

    routes.add_route(MATRIX_PATH, get, include_in_schema=False)  # GET and HEAD; the next one documents it
    routes.add_api_route(
        MATRIX_PATH,
        get,
        route_class_override=DirectRoute,
        tags=TAGS,
        operation_id="matrix",
        summary="Models and GPUs: what resolves, tuned or not, known bad or refused",
        response_model=Matrix,
        responses={**NOT_MODIFIED, **problems("invalid-input")},
        openapi_extra={"parameters": [*_documented(), IF_NONE_MATCH]},
    )
    return routes


def read_fields(items: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the parameters of a matrix by name, empty ones left out.

    Raises:
        QueryError: an unknown parameter, one given twice, or one that is too long.
    """
    fields: dict[str, str] = {}
    faults: list[FieldProblem] = []
    for name, text in items:
        if name not in FIELDS:
            faults.append(FieldProblem(name, "unknown parameter", tuple(FIELDS)))
        elif name in fields:
            faults.append(FieldProblem(name, "given twice"))
        elif len(text) > _MAX_TEXT:
            faults.append(FieldProblem(name, f"at most {_MAX_TEXT} characters"))
        elif text.strip():
            fields[name] = text.strip()
    if faults:
        raise QueryError(faults)
    return fields


def _serialise(matrices: Matrices, fields: dict[str, str]) -> bytes:
    return matrices.get(fields).model_dump_json().encode()


def _documented() -> list[dict[str, Any]]:
    of_queries = {field["name"]: field["schema"] for field in documented()}
    text = {"type": "string", "maxLength": _MAX_TEXT}
    schemas = {**of_queries, "model": text, "arch": {**text, "examples": ["MI300X"]}}
    return [
        {"name": name, "in": "query", "required": False, "description": meaning, "schema": schemas[name]}
        for name, meaning in FIELDS.items()
    ]
