"""``/v1/plan``: what a candidate would change, worked out beside the serving process."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.answers import Answers
from preshuffle.api.aside import Aside, AsideError, Portable
from preshuffle.api.limits import read_json
from preshuffle.api.openapi import BODY_PROBLEMS, json_body, problems
from preshuffle.api.plan import Candidate, Plan, plan_aside
from preshuffle.api.problem import ProblemError, invalid_input
from preshuffle.api.store import Store
from preshuffle.registry.errors import BookError, FieldProblem

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


def install(app: FastAPI, store: Store, answers: Answers) -> None:
    """Add the route."""
    alone = CapacityLimiter(1)

    @app.post(
        "/v1/plan",
        tags=TAGS,
        operation_id="plan",
        summary="What another book, other kernel tables or another AITER would change for the known deployments",
        response_model=Plan,
        responses=problems(*BODY_PROBLEMS, "store-unavailable", "interrupted"),
        openapi_extra=json_body(Candidate, EXAMPLE),
    )
    async def plan(request: Request) -> Response:
        candidate = Candidate.parse(await read_json(request, MAX_BODY))
        async with alone:
            body = await to_thread.run_sync(_plan, store, answers, candidate)
        return Response(body, media_type="application/json")


def _plan(store: Store, answers: Answers, candidate: Candidate) -> bytes:
    try:
        found = Aside().run(plan_aside, store.url, Portable(answers.registry), candidate)
    except BookError as error:
        faults = [
            FieldProblem(f"{problem.file}:{problem.line}:{problem.column}", problem.message, problem.valid)
            for problem in error.problems
        ]
        raise invalid_input(faults) from None
    except AsideError:
        raise ProblemError(
            "interrupted", "the plan was given up: the service is ending, or has no memory for it"
        ) from None
    return found.model_dump_json().encode()
