"""``/v1/history``: changes of one deployment or of everything."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from preshuffle.api.routes.deployments import Name, unknown
from preshuffle.api.store import Events, Store, in_thread
from preshuffle.api.web import Params, problems

TAGS: Final[list[str | Enum]] = ["history"]
_LAST: Final = datetime(9999, 1, 1, tzinfo=UTC)


class HistoryParams(Params):
    """Page of the history, and its earliest time."""

    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: Annotated[int | None, Field(ge=1, le=2**62, description="next of the page before")] = None
    since: Annotated[
        AwareDatetime | None,
        Field(ge=datetime(1970, 1, 2, tzinfo=UTC), le=_LAST, description="only what changed since then (RFC 3339)"),
    ] = None


def router(store: Store) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    @routes.get(
        "/v1/history",
        tags=TAGS,
        operation_id="history",
        summary="What changed, the newest first: reports, verdicts, silence, kernel tables, books",
        response_model=Events,
        responses=problems("invalid-input", "store-unavailable"),
    )
    async def everything(params: Annotated[HistoryParams, Query()]) -> Response:
        read = partial(store.history, params.limit, before=params.cursor, since=params.since)
        return _respond(await in_thread(read))

    @routes.get(
        "/v1/deployments/{name}/history",
        tags=TAGS,
        operation_id="deployment_history",
        summary="What changed about one deployment, the newest first; also after it was forgotten",
        response_model=Events,
        responses=problems("invalid-input", "unknown-deployment", "store-unavailable"),
    )
    async def one(name: Name, params: Annotated[HistoryParams, Query()]) -> Response:
        read = partial(store.history, params.limit, subject=name, before=params.cursor, since=params.since)
        events = await in_thread(read)
        if not events.events and await in_thread(store.get, name) is None:
            raise unknown(name)
        return _respond(events)

    return routes


def _respond(events: Events) -> Response:
    return Response(events.model_dump_json(), media_type="application/json")
