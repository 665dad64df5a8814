"""Probes: ``/healthz`` (liveness) and ``/readyz`` (readiness)."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from preshuffle.api.answers import Answers
from preshuffle.api.store import Store, in_thread
from preshuffle.api.upkeep import Watching
from preshuffle.api.web import problems
from preshuffle.registry.base.frozen import Frozen

TAGS: Final[list[str | Enum]] = ["health"]
SHOWN: Final = 8
"""Problems in one response, at most."""


class Health(Frozen):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Readiness(Health):
    """The service can answer, from this registry."""

    registry_digest: str
    book_problems: tuple[str, ...] = Field(
        default=(),
        description="why the book's files as they are now do not load (file:line:column); the last good stays",
    )
    table_problems: tuple[str, ...] = Field(default=(), description="the same of kernel tables")
    token_problems: tuple[str, ...] | None = Field(
        default=None, description="the same of the tokens: those that were revoked since stay in use; only where so"
    )


def router(store: Store, answers: Answers, watching: Watching) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()
    alive = Health().model_dump_json()

    @routes.get(
        "/healthz",
        tags=TAGS,
        operation_id="healthz",
        summary="Whether the process lives",
        response_model=Health,
    )
    async def healthz() -> Response:
        return Response(alive, media_type="application/json")

    @routes.get(
        "/readyz",
        tags=TAGS,
        operation_id="readyz",
        summary="Whether registry and store answer",
        response_model=Readiness,
        responses=problems("store-unavailable"),
    )
    async def readyz() -> Response:
        await in_thread(store.counters)
        ready = Readiness(
            registry_digest=answers.registry.digest,
            book_problems=tuple(map(str, watching.book.state.problems[:SHOWN])),
            table_problems=tuple(map(str, watching.tables.state.problems[:SHOWN])),
            token_problems=tuple(map(str, watching.tokens.state.problems[:SHOWN])) or None,
        )
        return Response(ready.model_dump_json(exclude_none=True), media_type="application/json")

    return routes
