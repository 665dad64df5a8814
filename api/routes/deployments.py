"""``/v1/deployments``: reports of engines, and their verdicts."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from enum import Enum
from functools import partial
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.answers import Answers, DeploymentHealth, DeploymentList, DeploymentView, summary, view
from preshuffle.api.fleet import (
    NAME_PATTERN,
    STATES,
    Beat,
    DeploymentName,
    Receipt,
    ReplicaNumber,
    ReplicaReport,
    State,
    judge,
    judge_name,
)
from preshuffle.api.routes.resolve import EXAMPLE as QUERY_EXAMPLE
from preshuffle.api.server import HEARTBEAT_PATH
from preshuffle.api.store import Precondition, Store, in_thread
from preshuffle.api.upkeep import Heartbeats, recheck
from preshuffle.api.web import (
    BODY_PROBLEMS,
    REQUEST_SECONDS,
    STORE_PROBLEMS,
    Params,
    ProblemError,
    identity_of,
    if_match,
    invalid_input,
    json_body,
    json_input,
    problems,
    request_identity,
)
from preshuffle.registry.base.errors import FieldProblem

TAGS: Final[list[str | Enum]] = ["deployments"]
EXAMPLE: Final[dict[str, Any]] = {
    "groups": [
        {
            "layers": "0-35",
            "observation": {
                "query": QUERY_EXAMPLE,
                "applied": {
                    "gate_mode": "separated",
                    "tensors": {"w13_weight": {"layout": "sep16", "is_shuffled": True}},
                },
            },
        }
    ],
    "node": "mi355x-07",
}
_IF_MATCH: Final = if_match("change")
_ETAG: Final = {"ETag": {"schema": {"type": "string"}, "description": "the deployment's revision"}}


class ReplicaParams(Params):
    """The replica that reports."""

    replica: ReplicaNumber = 0


class DeleteParams(Params):
    """The replica to forget; all of them where none is named."""

    replica: ReplicaNumber | None = None


class PageParams(Params):
    """Page of the list, and filters on it."""

    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: Annotated[str | None, Field(max_length=256, description="next of the page before")] = None
    state: Annotated[
        str | None,
        Field(max_length=256, description=f"only in these states, commas between: {', '.join(STATES)}"),
    ] = None
    name: Annotated[str, Field(max_length=128, description="only those whose name has this in it")] = ""

    @property
    def states(self) -> tuple[State, ...]:
        """Requested states; none: any.

        Raises:
            ProblemError: one of them does not exist.
        """
        names = [name.strip() for name in (self.state or "").split(",") if name.strip()]
        wrong = [name for name in names if name not in STATES]
        if wrong:
            raise invalid_input([FieldProblem("state", f"{wrong[0]!r} is not a state", tuple(STATES))])
        return tuple(state for state in STATES if state in names)


Name = Annotated[DeploymentName, Path(description="letters, digits and . _ - ; 128 at most")]


ReportBody = Annotated[ReplicaReport, json_input(ReplicaReport.parse)]


def router(store: Store, answers: Answers, heartbeats: Heartbeats) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    @routes.put(
        "/v1/deployments/{name}",
        tags=TAGS,
        operation_id="put_deployment",
        summary="Report what one replica did; the same report twice changes nothing",
        response_model=Receipt,
        responses={
            200: {"headers": _ETAG},
            201: {"model": Receipt, "description": "The deployment is new", "headers": _ETAG},
            **problems(*BODY_PROBLEMS, "precondition-failed", *STORE_PROBLEMS),
        },
        openapi_extra={**json_body(ReplicaReport, EXAMPLE), "parameters": [_IF_MATCH]},
    )
    async def put(
        request: Request, name: Name, params: Annotated[ReplicaParams, Query()], report: ReportBody
    ) -> Response:
        seen: list[int | None] = []
        check = _precondition(request, name)

        def precondition(revision: int | None) -> None:
            check(revision)
            seen.append(revision)

        who = request_identity(request)
        owner = identity_of(request.scope) or ""
        receipt = await in_thread(take, store, answers, name, params.replica, report, who, precondition, owner)
        return Response(
            receipt.model_dump_json(),
            201 if seen[-1] is None else 200,
            headers={"ETag": etag(receipt.revision)},
            media_type="application/json",
        )

    @routes.get(
        "/v1/deployments",
        tags=TAGS,
        operation_id="list_deployments",
        summary="All deployments, by name",
        response_model=DeploymentList,
        responses=problems("invalid-input", "store-unavailable"),
    )
    async def listing(params: Annotated[PageParams, Query()]) -> Response:
        after = read_cursor(params.cursor) if params.cursor else ""
        page = await in_thread(list_page, store, answers, params.limit, after, params.states, params.name)
        return Response(page.model_dump_json(), media_type="application/json")

    @routes.get(
        "/v1/deployments/{name}",
        tags=TAGS,
        operation_id="get_deployment",
        summary="One deployment: reports of its replicas, verdicts and decisions of the current registry",
        response_model=DeploymentView,
        responses={
            200: {"headers": _ETAG},
            **problems("invalid-input", "unknown-deployment", "store-unavailable"),
        },
    )
    async def get(name: Name) -> Response:
        shown = await in_thread(find, store, answers, name)
        body = await to_thread.run_sync(shown.model_dump_json)
        return Response(body, headers={"ETag": etag(shown.revision)}, media_type="application/json")

    @routes.get(
        "/v1/deployments/{name}/health",
        tags=TAGS,
        operation_id="get_deployment_health",
        summary="Whether a deployment may serve: 503 while its verdict is mismatch or unsupported",
        response_model=DeploymentHealth,
        responses=problems("invalid-input", "unknown-deployment", "unhealthy-deployment", "store-unavailable"),
    )
    async def health(name: Name) -> Response:
        body = await in_thread(_health, store, answers, name)
        return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")

    @routes.delete(
        "/v1/deployments/{name}",
        tags=TAGS,
        operation_id="delete_deployment",
        summary="Forget a deployment, or one replica of it",
        status_code=204,
        responses=problems("invalid-input", "unknown-deployment", "precondition-failed", *STORE_PROBLEMS),
        openapi_extra={"parameters": [_IF_MATCH]},
    )
    async def delete(request: Request, name: Name, params: Annotated[DeleteParams, Query()]) -> Response:
        forget = partial(store.delete, who=request_identity(request), precondition=_precondition(request, name))
        if not await in_thread(forget, name, params.replica):
            raise unknown(name)
        return Response(status_code=204)

    @routes.post(
        HEARTBEAT_PATH,
        tags=TAGS,
        operation_id="post_heartbeat",
        summary="Say that a replica lives; one that is not known must report first",
        response_model=Beat,
        responses=problems("invalid-input", "unknown-deployment", *STORE_PROBLEMS),
    )
    async def heartbeat(name: Name, params: Annotated[ReplicaParams, Query()]) -> Response:
        beat = await heartbeats.beat(name, params.replica)
        if beat is None:
            text = f"{name} has no replica {params.replica}; PUT /v1/deployments/{name}?replica={params.replica} first"
            raise ProblemError("unknown-deployment", text)
        return Response(beat.model_dump_json(), media_type="application/json")

    return routes


def find(store: Store, answers: Answers, name: str) -> DeploymentView:
    """Return the view of a deployment.

    Raises:
        ProblemError: no deployment has this name.
    """
    deployment = store.get(name)
    if deployment is None:
        raise unknown(name)
    return view(deployment, answers)


def _health(store: Store, answers: Answers, name: str) -> bytes:
    shown = find(store, answers, name)
    verdict = shown.verdict
    if verdict != "mismatch" and verdict != "unsupported":
        return (
            DeploymentHealth(verdict=verdict, state=shown.state, rechecking=shown.rechecking).model_dump_json().encode()
        )
    found = [finding for replica in shown.replicas for group in replica.groups for finding in group.findings]
    codes = tuple(dict.fromkeys(finding.code for finding in found if finding.severity == "error"))
    again = " (by the current registry; the stored verdict is being checked again)" if shown.rechecking else ""
    detail = f"{name} is {verdict}{again}: {', '.join(codes)}; GET /v1/deployments/{name} says what to do"
    headers = {"Cache-Control": "no-store"}
    raise ProblemError("unhealthy-deployment", detail, headers=headers, verdict=verdict, codes=codes)


def list_page(
    store: Store, answers: Answers, limit: int, after: str, states: Sequence[State] = (), part: str = ""
) -> DeploymentList:
    """Return a page of the list."""
    found, more = store.page(limit, after, states, part)
    judge = judge_name(answers.registry)
    return DeploymentList(
        deployments=tuple(summary(deployment, judge) for deployment in found),
        next=write_cursor(found[-1].name) if more else None,
    )


def take(
    store: Store,
    answers: Answers,
    name: str,
    replica: int,
    report: ReplicaReport,
    who: str,
    precondition: Precondition,
    owner: str = "",
) -> Receipt:
    """Judge a report; store both.

    Raises:
        StoreError: the store does not answer or its disk is full; nothing was changed.
        QueryError: its groups take too long to check.
    """
    registry = answers.registry
    judged = judge(report, registry, seconds=REQUEST_SECONDS)
    receipt = store.put(name, replica, report, judged, who=who, owner=owner, precondition=precondition)
    if answers.registry is not registry:  # replaced meanwhile: the re-check may have passed this replica already
        recheck(store, answers.registry, only=(name, replica))
    return receipt


def unknown(name: str) -> ProblemError:
    """Return the problem of an unknown deployment."""
    return ProblemError("unknown-deployment", f"no deployment is called {name!r}; GET /v1/deployments lists them")


def write_cursor(name: str) -> str:
    """Return the cursor of the page after a name."""
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> str:
    """Return the name in a cursor.

    Raises:
        ProblemError: it is not a cursor of this service.
    """
    try:
        name = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        name = ""
    if not re.fullmatch(NAME_PATTERN[1:-1], name):
        raise invalid_input([FieldProblem("cursor", f"{cursor!r} is not a cursor", ("next of the page before",))])
    return name


def etag(revision: int) -> str:
    """Return the ETag of a revision."""
    return f'"{revision}"'


def _precondition(request: Request, name: str) -> Precondition:
    """Return the check of ``If-Match``.

    A weak tag counts as well: GZip weakens the tag of a response, and a revision identifies a state, not bytes.
    """
    condition = request.headers.get("if-match")

    def check(revision: int | None) -> None:
        if condition is None:
            return
        tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
        if revision is None or ("*" not in tags and etag(revision) not in tags):
            current = "does not exist" if revision is None else f"is at revision {revision}"
            headers = {} if revision is None else {"ETag": etag(revision)}
            raise ProblemError("precondition-failed", f"{name} {current}; If-Match was {condition}", headers=headers)

    return check
