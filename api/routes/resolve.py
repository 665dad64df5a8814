"""``/v1/resolve``: decides layouts, call and kernels of a query."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.answers import Answer, Answers, ResponseCache, etag_of
from preshuffle.api.web import (
    BODY_PROBLEMS,
    IF_NONE_MATCH,
    MAX_BATCH,
    NOT_MODIFIED,
    CachedResponse,
    DirectRoute,
    Problem,
    as_problem,
    documented,
    in_turn,
    json_body,
    json_input,
    parse_json,
    parse_params,
    parsed,
    problem_response,
    problems,
    read_batch,
    read_json_body,
    write_batch,
    write_problem,
)
from preshuffle.registry.base.errors import QueryError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.values.decision import Decision
from preshuffle.registry.values.query import Query

TAGS: Final[list[str | Enum]] = ["resolve"]
EXAMPLE: Final[dict[str, Any]] = {
    "model": "openai/gpt-oss-120b",
    "arch": "gfx950",
    "activation_dtype": "fp4x2",
    "tp": 2,
    "aiter": "0.1.20.post1",
}


class Batch(Frozen):
    """Many queries at once; together they may name 10000 token counts."""

    queries: Annotated[tuple[Query, ...], Field(min_length=1, max_length=MAX_BATCH)]


class BatchResult(Frozen):
    """Result of one query of a batch: a decision or a problem."""

    decision: Decision | None = None
    problem: Problem | None = None


class BatchResults(Frozen):
    """Results in the order of the queries."""

    results: tuple[BatchResult, ...]


RESOLVE_PATH: Final = "/v1/resolve"
BatchBody = Annotated[list[Any], json_input(partial(read_batch, field="queries", query_of=lambda query: query))]


def router(answers: Answers, cache: ResponseCache) -> APIRouter:
    """Return the routes, which answer ``/v1/resolve`` from a cache and fill it."""
    routes = APIRouter()

    async def get(request: Request) -> Response:
        registry = answers.registry
        answer = await answers.ask(parse_params(request.query_params.multi_items()))
        if answer.problem is not None:
            return _respond(request, answer)
        response = CachedResponse(answer.body, etag_of(answer.body))
        cache.store(request.scope["query_string"], response, registry)
        return await response.respond(request)

    routes.add_api_route(
        RESOLVE_PATH,
        get,
        route_class_override=DirectRoute,
        tags=TAGS,
        operation_id="resolve_get",
        summary="Decide one query, given as parameters",
        response_model=Decision,
        responses={**NOT_MODIFIED, **problems("no-recipe", "invalid-input")},
        openapi_extra={"parameters": [*documented(), IF_NONE_MATCH]},
    )

    async def post(request: Request) -> Response:
        body = await read_json_body(request)
        answer = cache.find_posted(body)
        if answer is None:
            registry = answers.registry
            answer = await answers.ask(await parsed(body, lambda text: Query.parse(parse_json(text))))
            cache.store_posted(body, answer, registry)
        return _respond(request, answer)

    routes.add_api_route(
        RESOLVE_PATH,
        post,
        route_class_override=DirectRoute,
        methods=["POST"],
        tags=TAGS,
        operation_id="resolve",
        summary="Decide one query",
        response_model=Decision,
        responses=problems("no-recipe", *BODY_PROBLEMS),
        openapi_extra=json_body(Query, EXAMPLE),
    )

    @routes.post(
        f"{RESOLVE_PATH}/batch",
        tags=TAGS,
        operation_id="resolve_batch",
        summary="Decide up to 1000 queries; each gets a decision or a problem of its own",
        response_model=BatchResults,
        response_model_exclude_none=True,
        responses=problems(*BODY_PROBLEMS),
        openapi_extra=json_body(Batch, {"queries": [EXAMPLE, {**EXAMPLE, "activation_dtype": "bf16"}]}),
    )
    async def batch(request: Request, queries: BatchBody) -> Response:
        answer = partial(_answer_one, answers, path=request.url.path)
        body = await in_turn(write_batch, queries, answer, request.url.path)
        return Response(body, media_type="application/json")

    return routes


def _respond(request: Request, answer: Answer) -> Response:
    if answer.problem is not None:
        return problem_response(answer.problem, request)  # not raised: it is cached, and would collect tracebacks
    return Response(answer.body, media_type="application/json")


def _answer_one(answers: Answers, value: Any, path: str) -> bytes:
    try:
        answer = answers.get(Query.parse(value))
    except QueryError as error:
        answer = Answer(problem=as_problem(error))
    if answer.problem is None:
        return b'{"decision":' + answer.body + b"}"
    return write_problem(answer.problem, path)
