"""Installation of all pages, their scripts and their style sheet."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from preshuffle.api.answers import Answers, Matrices
from preshuffle.api.pages import book, changes, deployments, matrix, plan, resolve, runbooks
from preshuffle.api.pages.api_reference import reference
from preshuffle.api.pages.render import Renderer
from preshuffle.api.rollout import Planner
from preshuffle.api.settings import Settings
from preshuffle.api.store import Store
from preshuffle.api.upkeep import Watching


def install(
    app: FastAPI,
    store: Store,
    answers: Answers,
    matrices: Matrices,
    watching: Watching,
    planner: Planner,
    settings: Settings,
) -> None:
    """Add the pages and the static files to the application."""
    render = Renderer(answers, watching, settings)
    render.problems(app)
    deployments.install(app, store, answers, render)
    changes.install(app, store, render)
    matrix.install(app, answers, matrices, render)
    resolve.install(app, answers, render)
    book.install(app, store, answers, render)
    plan.install(app, answers, planner, render)
    runbooks.install(app, render)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return render("docs.html", place="docs", base=render.base(request), reference=reference(app.openapi()))

    app.mount("/static", StaticFiles(packages=[("preshuffle.api", "static")]), name="static")
