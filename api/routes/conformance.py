"""``/v1/conformance``: reports of ``preshuffle conform`` by AITER build."""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Annotated, Final

from fastapi import APIRouter, Path
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.fleet import INPUT_FORMS
from preshuffle.api.store import Store, StoredConformance, conformance_store, in_thread
from preshuffle.api.web import (
    BODY_PROBLEMS,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    STORE_PROBLEMS,
    ProblemError,
    if_match,
    invalid_input,
    json_body,
    json_input,
    matches,
    problems,
    request_identity,
)
from preshuffle.registry.base.errors import FieldProblem
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.values.conformance import BUILD_PATTERN, ConformanceReport

TAGS: Final[list[str | Enum]] = ["conformance"]
CONFORMANCE_PATH: Final = "/v1/conformance"
MAX_REPORT: Final = 4 << 20
"""Largest report in bytes."""
EXAMPLE: Final = INPUT_FORMS["conformance-report"].example
_IF_MATCH: Final = if_match("replace")
Build = Annotated[
    str, Path(pattern=BUILD_PATTERN, examples=["0.1.20.post1"], description="the report's aiter.id, exactly")
]
ReportBody = Annotated[ConformanceReport, json_input(ConformanceReport.parse, MAX_REPORT)]


class ConformanceReceipt(Frozen):
    """Acknowledgement of a report, sent once it is on disk."""

    build: str
    verdict: str
    summary: str
    digest: str
    changed: bool = Field(description="false where the same report was stored before")


class ConformanceList(Frozen):
    """Conformance reports, by build."""

    reports: tuple[StoredConformance, ...]


def router(store: Store) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()
    cached = {"parameters": [IF_NONE_MATCH]}

    @routes.put(
        CONFORMANCE_PATH + "/{aiter_build}",
        tags=TAGS,
        operation_id="put_conformance",
        summary="Keep the report of preshuffle conform for one AITER build, in place of its last one",
        response_model=ConformanceReceipt,
        responses={
            201: {"model": ConformanceReceipt, "description": "The build had no report"},
            **problems(*BODY_PROBLEMS, "precondition-failed", *STORE_PROBLEMS),
        },
        openapi_extra={**json_body(ConformanceReport, EXAMPLE), "parameters": [_IF_MATCH]},
    )
    async def put(request: Request, aiter_build: Build, report: ReportBody) -> Response:
        if report.aiter.id != aiter_build:
            raise invalid_input(
                [FieldProblem("aiter.id", f"{report.aiter.id!r} is not the build of this path", (aiter_build,))]
            )
        check = _precondition(request)
        before = await in_thread(conformance_store.put, store, report, request_identity(request), check)
        receipt = ConformanceReceipt(
            build=aiter_build,
            verdict=report.verdict,
            summary=report.summary(),
            digest=report.digest,
            changed=before != report.digest,
        )
        return _respond(receipt.model_dump_json(), report.digest, 201 if before is None else 200)

    @routes.get(
        CONFORMANCE_PATH,
        tags=TAGS,
        operation_id="list_conformance",
        summary="AITER builds that the book was held against",
        response_model=ConformanceList,
        responses={**NOT_MODIFIED, **problems("store-unavailable")},
        openapi_extra=cached,
    )
    async def listing(request: Request) -> Response:
        body = ConformanceList(reports=await in_thread(conformance_store.listing, store)).model_dump_json()
        return _unless_known(request, body, f"sha256:{hashlib.sha256(body.encode()).hexdigest()}")

    @routes.get(
        CONFORMANCE_PATH + "/{aiter_build}",
        tags=TAGS,
        operation_id="get_conformance",
        summary="The conformance report of one AITER build",
        response_model=ConformanceReport,
        responses={**NOT_MODIFIED, **problems("invalid-input", "unknown-conformance", "store-unavailable")},
        openapi_extra=cached,
    )
    async def get(request: Request, aiter_build: Build) -> Response:
        report = await in_thread(conformance_store.get, store, aiter_build)
        if report is None:
            detail = f"no conformance report of AITER {aiter_build} is stored; preshuffle conform --report makes one"
            raise ProblemError("unknown-conformance", detail)
        return _unless_known(request, report.model_dump_json(), report.digest)

    return routes


def _precondition(request: Request) -> conformance_store.DigestCheck:
    """Return the check of ``If-Match``: a digest, or ``*`` for any report."""
    wanted = request.headers.get("if-match")

    def check(digest: str | None) -> None:
        if wanted is None or (wanted.strip() == "*" and digest is not None):
            return
        if digest is None or f'"{digest}"' not in [item.strip() for item in wanted.split(",")]:
            raise ProblemError("precondition-failed", f"the stored report is {digest or 'none'}, not {wanted}")

    return check


def _unless_known(request: Request, body: str, digest: str) -> Response:
    if matches(request.headers.get("if-none-match", ""), f'"{digest}"'):
        return Response(status_code=304, headers={"ETag": f'"{digest}"'})
    return _respond(body, digest, 200)


def _respond(body: str, digest: str, status: int) -> Response:
    return Response(body, status, headers={"ETag": f'"{digest}"'}, media_type="application/json")
