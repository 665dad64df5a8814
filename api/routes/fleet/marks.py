"""``/v1/deployments/{name}``: labels, owner, link, silence and acknowledgement."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.fleet import AcknowledgeRequest, Deployment, Description, Marks, SilenceRequest
from preshuffle.api.routes.deployments import Name, precondition_of, unknown
from preshuffle.api.store import (
    MarkChange,
    Store,
    acknowledge,
    describe,
    in_thread,
    silence,
    unacknowledge,
    unsilence,
)
from preshuffle.api.web import (
    BODY_PROBLEMS,
    STORE_PROBLEMS,
    if_match,
    invalid_input,
    json_body,
    json_input,
    problems,
    request_identity,
)
from preshuffle.registry.base.errors import FieldProblem

TAGS: Final[list[str | Enum]] = ["deployments"]
LONGEST: Final = timedelta(days=366)
_IF_MATCH: Final[dict[str, Any]] = {"parameters": [if_match("change")]}
_PROBLEMS: Final = ("unknown-deployment", "precondition-failed", *STORE_PROBLEMS)
_Change = Callable[[Deployment, int], MarkChange]


def router(store: Store) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    async def change(request: Request, name: str, made: _Change) -> Response:
        who, precondition = request_identity(request), precondition_of(request, name)
        marks = await in_thread(lambda: store.mark(name, made, who=who, precondition=precondition))
        if marks is None:
            raise unknown(name)
        return Response(marks.model_dump_json(), media_type="application/json")

    @routes.patch(
        "/v1/deployments/{name}",
        tags=TAGS,
        operation_id="describe_deployment",
        summary="Change a deployment's labels, owner or link",
        response_model=Marks,
        responses=problems(*BODY_PROBLEMS, *_PROBLEMS),
        openapi_extra={**json_body(Description, {"labels": {"team": "inference"}, "owner": "ann"}), **_IF_MATCH},
    )
    async def patch(
        request: Request, name: Name, body: Annotated[Description, json_input(Description.parse)]
    ) -> Response:
        return await change(request, name, lambda _stored, _now: describe(body))

    @routes.put(
        "/v1/deployments/{name}/silence",
        tags=TAGS,
        operation_id="silence_deployment",
        summary="Silence a deployment until a time: it counts in no state's number",
        response_model=Marks,
        responses=problems(*BODY_PROBLEMS, *_PROBLEMS),
        openapi_extra={**json_body(SilenceRequest, {"until": "2026-12-01T08:00:00Z", "note": "INC-7"}), **_IF_MATCH},
    )
    async def put_silence(
        request: Request, name: Name, body: Annotated[SilenceRequest, json_input(SilenceRequest.parse)]
    ) -> Response:
        _check_until(body.until)
        who = request_identity(request)
        return await change(request, name, lambda _stored, now: silence(who, now, body.until, body.note))

    @routes.delete(
        "/v1/deployments/{name}/silence",
        tags=TAGS,
        operation_id="end_silence",
        summary="End a deployment's silence",
        response_model=Marks,
        responses=problems("invalid-input", *_PROBLEMS),
        openapi_extra=_IF_MATCH,
    )
    async def end_silence(request: Request, name: Name) -> Response:
        return await change(request, name, lambda _stored, _now: unsilence())

    @routes.put(
        "/v1/deployments/{name}/acknowledgement",
        tags=TAGS,
        operation_id="acknowledge_deployment",
        summary="Acknowledge a deployment's state; that ends when the state changes",
        response_model=Marks,
        responses=problems(*BODY_PROBLEMS, *_PROBLEMS),
        openapi_extra={**json_body(AcknowledgeRequest, {"note": "reloading at noon"}), **_IF_MATCH},
    )
    async def put_acknowledgement(
        request: Request, name: Name, body: Annotated[AcknowledgeRequest, json_input(AcknowledgeRequest.parse)]
    ) -> Response:
        who = request_identity(request)
        return await change(request, name, lambda stored, now: acknowledge(who, now, stored.state, body.note))

    @routes.delete(
        "/v1/deployments/{name}/acknowledgement",
        tags=TAGS,
        operation_id="withdraw_acknowledgement",
        summary="Withdraw the acknowledgement of a deployment's state",
        response_model=Marks,
        responses=problems("invalid-input", *_PROBLEMS),
        openapi_extra=_IF_MATCH,
    )
    async def withdraw(request: Request, name: Name) -> Response:
        return await change(request, name, lambda _stored, _now: unacknowledge())

    return routes


def _check_until(until: datetime) -> None:
    """Check the end of a silence.

    Raises:
        ProblemError: it is over, or too far away.
    """
    now = datetime.now(UTC)
    if not now < until <= now + LONGEST:
        valid = (f"from now on, until {now + LONGEST:%Y-%m-%dT%H:%M:%SZ}",)
        raise invalid_input([FieldProblem("until", f"{until.isoformat()} is over or too far away", valid)])
