"""``/v1/resolve``: which bytes, which call, which kernels, and why."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import FastAPI
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from preshuffle.api.answers import Answer, Answers
from preshuffle.api.hot import HotResolve, etag_of
from preshuffle.api.limits import parse_json, read_json, read_json_body
from preshuffle.api.openapi import BODY_PROBLEMS, json_body, problems
from preshuffle.api.problem import Problem, as_problem, problem_response
from preshuffle.api.query_params import documented, parse_params
from preshuffle.api.serialised import IF_NONE_MATCH, names
from preshuffle.registry.decision import Decision
from preshuffle.registry.errors import FieldProblem, QueryError
from preshuffle.registry.query import TOKENS, Frozen, Query

TAGS: Final[list[str | Enum]] = ["resolve"]
MAX_BATCH: Final = 1000
MAX_BATCH_TOKENS: Final = 10_000
"""Token counts that a batch may ask for, over all its queries: each costs a kernel prediction."""

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
    """The answer to one query of a batch: a decision, or the problem that it alone would have been answered with."""

    decision: Decision | None = None
    problem: Problem | None = None


class BatchResults(Frozen):
    """The answers in the order of the queries."""

    results: tuple[BatchResult, ...]


def install(app: FastAPI, answers: Answers, hot: HotResolve) -> None:
    """Add the routes; what GET answers is kept in ``hot``."""

    @app.get(
        "/v1/resolve",
        tags=TAGS,
        operation_id="resolve_get",
        summary="Decide one query, given as parameters",
        response_model=Decision,
        responses={304: {"description": "The client has it"}, **problems("no-recipe", "invalid-input")},
        openapi_extra={"parameters": [*documented(), IF_NONE_MATCH]},
    )
    async def get(request: Request) -> Response:
        registry = answers.registry
        answer = await answers.ask(parse_params(request.query_params.multi_items()))
        hot.keep(request.scope["query_string"], answer, registry)
        return _respond(request, answer)

    @app.post(
        "/v1/resolve",
        tags=TAGS,
        operation_id="resolve",
        summary="Decide one query",
        response_model=Decision,
        responses=problems("no-recipe", *BODY_PROBLEMS),
        openapi_extra=json_body(Query, EXAMPLE),
    )
    async def post(request: Request) -> Response:
        body = await read_json_body(request)
        answer = hot.posted(body)
        if answer is None:
            registry = answers.registry
            answer = await answers.ask(Query.parse(parse_json(body)))
            hot.keep_posted(body, answer, registry)
        return _respond(request, answer)

    app.router.routes.insert(0, Route("/v1/resolve", post, methods=["POST"]))  # answers; the one above documents

    @app.post(
        "/v1/resolve/batch",
        tags=TAGS,
        operation_id="resolve_batch",
        summary="Decide up to 1000 queries; each gets a decision or a problem of its own",
        response_model=BatchResults,
        response_model_exclude_none=True,
        responses=problems(*BODY_PROBLEMS),
        openapi_extra=json_body(Batch, {"queries": [EXAMPLE, {**EXAMPLE, "activation_dtype": "bf16"}]}),
    )
    async def batch(request: Request) -> Response:
        queries = _queries(await read_json(request))
        body = await to_thread.run_sync(_answer_all, answers, queries, request.url.path)
        return Response(body, media_type="application/json")


def _respond(request: Request, answer: Answer) -> Response:
    if answer.problem is not None:
        return problem_response(answer.problem, request)  # not raised: it is kept, and would keep every traceback
    if request.method != "GET":
        return Response(answer.body, media_type="application/json")
    etag = etag_of(answer.body)
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    known = request.headers.get("if-none-match")
    if known is not None and names(known, etag):
        return Response(status_code=304, headers=headers)
    return Response(answer.body, headers=headers, media_type="application/json")


def _queries(value: Any) -> list[Any]:
    """Check the batch itself; its queries are judged one by one.

    Raises:
        QueryError: not a list of 1 to 1000 queries, or too many token counts in all.
    """
    queries = value.get("queries") if isinstance(value, dict) else None
    if not isinstance(queries, list) or set(value) != {"queries"} or not 1 <= len(queries) <= MAX_BATCH:
        shape = f'{{"queries": [1 to {MAX_BATCH} queries]}}'
        raise QueryError([FieldProblem("queries", "the body is not a batch", (shape,))])
    tokens = sum(token_count(query) for query in queries)
    if tokens > MAX_BATCH_TOKENS:
        text = f"all queries together name {tokens} token counts; valid: {MAX_BATCH_TOKENS} at most"
        raise QueryError([FieldProblem("queries", text)])
    return queries


def token_count(query: Any) -> int:
    """Return how many token counts a query asks for, before it has been judged."""
    tokens = query.get("tokens", TOKENS) if isinstance(query, dict) else ()
    return len(tokens) if isinstance(tokens, list | tuple) else 1


def _answer_all(answers: Answers, queries: list[Any], path: str) -> bytes:
    return b'{"results":[' + b",".join(_answer_one(answers, query, path) for query in queries) + b"]}"


def _answer_one(answers: Answers, value: Any, path: str) -> bytes:
    try:
        answer = answers.get(Query.parse(value))
    except QueryError as error:
        answer = Answer(problem=as_problem(error))
    if answer.problem is None:
        return b'{"decision":' + answer.body + b"}"
    return b'{"problem":' + answer.problem.problem(path).model_dump_json(exclude_none=True).encode() + b"}"
