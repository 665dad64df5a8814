"""``/healthz``: the process lives. ``/readyz``: it can answer."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

from anyio import to_thread
from fastapi import FastAPI
from starlette.responses import Response

from preshuffle.api.openapi import problems
from preshuffle.api.store import Store
from preshuffle.registry.query import Frozen
from preshuffle.registry.registry import Registry

TAGS: Final[list[str | Enum]] = ["health"]


class Health(Frozen):
    """It is well."""

    status: Literal["ok"] = "ok"


class Readiness(Health):
    """It can answer, from this registry."""

    registry_digest: str


def install(app: FastAPI, store: Store, registry: Registry) -> None:
    """Add the routes."""
    alive = Health().model_dump_json()
    ready = Readiness(registry_digest=registry.digest).model_dump_json()

    @app.get(
        "/healthz",
        tags=TAGS,
        operation_id="healthz",
        summary="Whether the process lives",
        response_model=Health,
    )
    async def healthz() -> Response:
        return Response(alive, media_type="application/json")

    @app.get(
        "/readyz",
        tags=TAGS,
        operation_id="readyz",
        summary="Whether registry and store answer",
        response_model=Readiness,
        responses=problems("store-unavailable"),
    )
    async def readyz() -> Response:
        await to_thread.run_sync(store.ping)
        return Response(ready, media_type="application/json")
