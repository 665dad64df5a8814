"""The pages for operators: deployments, changes, resolve, the book, a plan, and the API's reference."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from preshuffle.api import page_book, page_changes, page_deployments, page_plan, page_resolve
from preshuffle.api.answers import Answers
from preshuffle.api.api_reference import reference
from preshuffle.api.page_render import Renderer
from preshuffle.api.reload import Watching
from preshuffle.api.routes_plan import Planner
from preshuffle.api.store import Store


def install(app: FastAPI, store: Store, answers: Answers, watching: Watching, planner: Planner) -> None:
    """Add the pages, their scripts and their style sheet."""
    render = Renderer(answers, watching)
    render.problems(app)
    page_deployments.install(app, store, answers, render)
    page_changes.install(app, store, render)
    page_resolve.install(app, answers, render)
    page_book.install(app, store, answers, render)
    page_plan.install(app, answers, planner, render)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return render("docs.html", place="docs", reference=reference(app.openapi()))

    app.mount("/static", StaticFiles(packages=[("preshuffle.api", "static")]), name="static")
