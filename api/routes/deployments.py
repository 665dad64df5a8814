"""``/v1/deployments``: reports of engines, and their verdicts."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.answers import Answers, DeploymentHealth, DeploymentView, view
from preshuffle.api.fleet import (
    Beat,
    DeploymentName,
    Receipt,
    ReplicaNumber,
    ReplicaReport,
    judge,
    number_problem,
    without_unknown_env,
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
    json_body,
    json_input,
    problems,
    request_identity,
)
from preshuffle.registry.base.errors import FieldProblem, QueryError

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
        wrong = number_problem(params.replica, report.pipeline)
        if wrong:
            raise QueryError([FieldProblem("replica", wrong)])
        seen: list[int | None] = []
        check = precondition_of(request, name)

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
        summary="Whether a deployment may serve: 503 while it is mismatch, unsupported or incomplete",
        response_model=DeploymentHealth,
        responses=problems(
            "invalid-input", "unknown-deployment", "unhealthy-deployment", "incomplete-deployment", "store-unavailable"
        ),
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
        forget = partial(store.delete, who=request_identity(request), precondition=precondition_of(request, name))
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
        if shown.incomplete:
            detail = f"{name}: {'; '.join(one.text for one in shown.incomplete)}"
            headers = {"Cache-Control": "no-store", "Retry-After": "5"}
            raise ProblemError("incomplete-deployment", detail, headers=headers, verdict=verdict)
        return (
            DeploymentHealth(verdict=verdict, state=shown.state, rechecking=shown.rechecking).model_dump_json().encode()
        )
    found = [finding for replica in shown.replicas for group in replica.groups for finding in group.findings]
    codes = tuple(dict.fromkeys(finding.code for finding in found if finding.severity == "error"))
    again = " (by the current registry; the stored verdict is being checked again)" if shown.rechecking else ""
    detail = f"{name} is {verdict}{again}: {', '.join(codes)}; GET /v1/deployments/{name} says what to do"
    headers = {"Cache-Control": "no-store"}
    raise ProblemError("unhealthy-deployment", detail, headers=headers, verdict=verdict, codes=codes)


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
    """Judge a report without the variables that no book knows; store both.

    Raises:
        StoreError: the store does not answer or its disk is full; nothing was changed.
        QueryError: its groups take too long to check.
    """
    registry = answers.registry
    kept, env_left_out = without_unknown_env(report, registry.book)
    judged = judge(kept, registry, seconds=REQUEST_SECONDS)
    receipt = store.put(
        name, replica, kept, judged, who=who, owner=owner, env_left_out=env_left_out, precondition=precondition
    )
    if answers.registry is not registry:  # replaced meanwhile: the re-check may have passed this replica already
        recheck(store, answers.registry, only=(name, replica))
    return receipt


def unknown(name: str) -> ProblemError:
    """Return the problem of an unknown deployment."""
    return ProblemError("unknown-deployment", f"no deployment is called {name!r}; GET /v1/deployments lists them")


def etag(revision: int) -> str:
    """Return the ETag of a revision."""
    return f'"{revision}"'


def precondition_of(request: Request, name: str) -> Precondition:
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
