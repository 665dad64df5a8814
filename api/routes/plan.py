"""``/v1/plan``: what a candidate book, tables or AITER would change."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from anyio import to_thread
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.rollout import Candidate, Plan, Planner, while_connected
from preshuffle.api.web import BODY_PROBLEMS, json_body, parse_json, parsed, problems, read_json_body

TAGS: Final[list[str | Enum]] = ["plan"]
MAX_BODY: Final = 32 << 20
EXAMPLE: Final[dict[str, Any]] = {
    "books": [
        {
            "rollout.yaml": "rules:\n  acme.first:\n    when: {model: openai/gpt-oss-120b, arch: gfx950, "
            "activation_dtype: fp4x2, deployment: canary-a}\n    use: mxfp4.gui16\n    because: it goes first\n"
        }
    ],
    "deployments": "canary-*",
}


def router(planner: Planner) -> APIRouter:
    """Return the route."""
    routes = APIRouter()

    @routes.post(
        "/v1/plan",
        tags=TAGS,
        operation_id="plan",
        summary="What another book, other kernel tables or another AITER would change for the known deployments",
        response_model=Plan,
        responses=problems(*BODY_PROBLEMS, "store-unavailable", "interrupted", "busy"),
        openapi_extra=json_body(Candidate, EXAMPLE),
    )
    async def post(request: Request) -> Response:
        async with planner.turn():  # before the body is read: bodies of jobs that wait take no memory
            body = await read_json_body(request, MAX_BODY)
            candidate = await parsed(body, lambda text: Candidate.parse(parse_json(text)))
            found = await while_connected(request, planner.plan(candidate))
            answer = await to_thread.run_sync(found.model_dump_json)
        return Response(answer, media_type="application/json")

    return routes
