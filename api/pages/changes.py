"""Pages of the history: events, the newest first.

Events are reports, verdicts, missed heartbeats, uploads of kernel tables and changes of the book.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Final

from fastapi import FastAPI, Query
from pydantic import Field
from starlette.responses import Response

from preshuffle.api.pages.formats import url
from preshuffle.api.pages.render import Renderer
from preshuffle.api.routes import deployments
from preshuffle.api.store import Store, in_thread
from preshuffle.api.web import Params

SPANS: Final = ((1, "the last hour"), (24, "the last day"), (168, "the last week"), (None, "all"))
_PAGE: Final = 50


class ChangesParams(Params):
    """Query parameters of a history page: since when, and which page."""

    hours: Annotated[int | None, Field(ge=1, le=24 * 366)] = None
    cursor: Annotated[int | None, Field(ge=1, le=2**62)] = None


def install(app: FastAPI, store: Store, render: Renderer) -> None:
    """Add the pages."""

    async def show(path: str, subject: str | None, params: ChangesParams) -> Response:
        since = None if params.hours is None else datetime.now(UTC) - timedelta(hours=params.hours)
        read = partial(store.history, _PAGE, subject=subject, before=params.cursor, since=since)
        events = await in_thread(read)
        return render(
            "changes.html",
            place="changes",
            subject=subject,
            events=events,
            spans=[(words, url(path, hours=hours), hours == params.hours) for hours, words in SPANS],
            here=url(path, hours=params.hours, cursor=params.cursor),
            first=params.cursor is None,
            start=url(path, hours=params.hours),
            further=url(path, hours=params.hours, cursor=events.next) if events.next else None,
        )

    @app.get("/changes", include_in_schema=False)
    async def everything(params: Annotated[ChangesParams, Query()]) -> Response:
        return await show("/changes", None, params)

    @app.get("/deployments/{name}/changes", include_in_schema=False)
    async def one(name: deployments.Name, params: Annotated[ChangesParams, Query()]) -> Response:
        return await show(f"/deployments/{name}/changes", name, params)
