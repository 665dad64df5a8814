"""``/v1/check``: compares bytes, call and kernels of a deployment or a replica."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter
from fastapi import Query as Parameters
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.answers import Answers
from preshuffle.api.fleet import ReplicaCheck, ReplicaReport, check_replica, parse_observed
from preshuffle.api.web import (
    BODY_PROBLEMS,
    MAX_BATCH,
    REQUEST_SECONDS,
    Params,
    Problem,
    as_problem,
    in_turn,
    json_body,
    json_input,
    problems,
    read_batch,
    write_batch,
    write_problem,
)
from preshuffle.registry.base.errors import QueryError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.report import Report

TAGS: Final[list[str | Enum]] = ["check"]
EXAMPLE: Final[dict[str, Any]] = {
    "query": {"model": "openai/gpt-oss-120b", "arch": "gfx950", "tp": 1, "aiter": "0.1.14"},
    "applied": {
        "gate_mode": "separated",
        "tensors": {"w13_weight": {"layout": "gui16"}, "w13_weight_scale": {"layout": "e8_gui16"}},
    },
}


class CheckParams(Params):
    """Parameters of a check."""

    decide: Annotated[bool, Field(description="also say what the registry would do for the query")] = False


class Observations(Frozen):
    """Many observations at once; together their queries may name 10000 token counts."""

    observations: Annotated[tuple[Observation, ...], Field(min_length=1, max_length=MAX_BATCH)]


class CheckResult(Frozen):
    """Result of one observation of a batch: a report or a problem."""

    report: Report | None = None
    problem: Problem | None = None


class CheckResults(Frozen):
    """Results in the order of the observations."""

    results: tuple[CheckResult, ...]


def _query_of(observation: Any) -> Any:
    return observation.get("query") if isinstance(observation, dict) else None


ObservedBody = Annotated[Observation | ReplicaReport, json_input(parse_observed)]
BatchBody = Annotated[list[Any], json_input(partial(read_batch, field="observations", query_of=_query_of))]


def router(answers: Answers) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    @routes.post(
        "/v1/check",
        tags=TAGS,
        operation_id="check",
        summary="Compare bytes, call and kernels of a deployment with each other",
        response_model=Report | ReplicaCheck,
        responses=problems(*BODY_PROBLEMS),
        openapi_extra=json_body(Observation, EXAMPLE, ReplicaReport),
    )
    async def check(observed: ObservedBody, params: Annotated[CheckParams, Parameters()]) -> Response:
        body = await to_thread.run_sync(_answer, answers, observed, params.decide)
        return Response(body, media_type="application/json")

    @routes.post(
        "/v1/check/batch",
        tags=TAGS,
        operation_id="check_batch",
        summary="Check up to 1000 observations; each gets a report or a problem of its own",
        response_model=CheckResults,
        response_model_exclude_none=True,
        responses=problems(*BODY_PROBLEMS),
        openapi_extra=json_body(Observations, {"observations": [EXAMPLE]}),
    )
    async def batch(request: Request, observations: BatchBody) -> Response:
        answer = partial(_check_one, answers, path=request.url.path)
        body = await in_turn(write_batch, observations, answer, request.url.path)
        return Response(body, media_type="application/json")

    return routes


def _answer(answers: Answers, observed: Observation | ReplicaReport, decide: bool) -> bytes:
    check = partial(_report, answers, decide=decide)
    if isinstance(observed, ReplicaReport):
        return check_replica(observed, check, REQUEST_SECONDS).model_dump_json().encode()
    return check(observed).model_dump_json().encode()


def _report(answers: Answers, observation: Observation, decide: bool = False) -> Report:
    report = answers.check(observation)
    if not decide:
        return report
    decision = answers.get(observation.query).decision
    return Report(verdict=report.verdict, findings=report.findings, decision=decision)


def _check_one(answers: Answers, value: Any, path: str) -> bytes:
    try:
        report = _report(answers, Observation.parse(value))
        return b'{"report":' + report.model_dump_json().encode() + b"}"
    except QueryError as error:
        return write_problem(as_problem(error), path)
