"""The operators' page: deployments, and for one of them its bytes drawn, with the reason and what was rejected."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import FastAPI, Query
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from preshuffle.api.answers import Answers
from preshuffle.api.api_reference import reference
from preshuffle.api.listings import our_version, registry_view
from preshuffle.api.page_context import sections, words
from preshuffle.api.picture_svg import number
from preshuffle.api.problem import ProblemError
from preshuffle.api.routes_deployments import EXAMPLE, PageParams, find, list_page, read_cursor
from preshuffle.api.store import Store
from preshuffle.registry.report import MEANINGS

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_UNITS: Final = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def install(app: FastAPI, store: Store, answers: Answers) -> None:
    """Add the page, the API's reference and their style sheet."""
    _install_pages(app, store, answers)
    app.mount("/static", StaticFiles(packages=[("preshuffle.api", "static")]), name="static")


def _install_pages(app: FastAPI, store: Store, answers: Answers) -> None:
    render = _Renderer(answers)

    @app.get("/", include_in_schema=False)
    async def index(request: Request, params: Annotated[PageParams, Query()]) -> Response:
        after = read_cursor(params.cursor) if params.cursor else ""
        page = await to_thread.run_sync(list_page, store, params.limit, after, params.states)
        base = str(request.base_url).rstrip("/")
        return render("index.html", place="deployments", page=page, first=not after, base=base, example=EXAMPLE)

    @app.get("/deployments/{name}", include_in_schema=False)
    async def deployment(request: Request, name: str) -> Response:
        try:
            return await to_thread.run_sync(_deployment, store, answers, render, name)
        except ProblemError as error:
            if error.kind != "unknown-deployment" or "text/html" not in request.headers.get("accept", ""):
                raise
            return render("unknown.html", status=404, place="", name=name)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return render("docs.html", place="docs", reference=reference(app.openapi()))


def _deployment(store: Store, answers: Answers, render: _Renderer, name: str) -> Response:
    view = find(store, answers, name)
    return render("deployment.html", place="", view=view, sections=sections(view, answers.registry.book))


class _Renderer:
    """Templates with what all of them show."""

    def __init__(self, answers: Answers) -> None:
        self._templates = Environment(
            loader=PackageLoader("preshuffle.api"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.policies["json.dumps_kwargs"] = {"sort_keys": False}
        self._templates.filters.update(ago=ago, words=words, number=number, shape=shape, numbers=numbers)
        known = {"version": our_version(), "meanings": MEANINGS}
        self._templates.globals.update(registry=registry_view(answers.registry), **known)
        answers.followers.append(lambda registry: self._templates.globals.update(registry=registry_view(registry)))

    def __call__(self, template: str, status: int = 200, **context: Any) -> Response:
        text = self._templates.get_template(template).render(**context)
        return Response(text, status, headers=HEADERS, media_type="text/html; charset=utf-8")


def ago(moment: datetime, now: datetime | None = None) -> str:
    """Say how long ago something was.

    Example:
        >>> ago(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 2, 5, tzinfo=UTC))
        '2 hours ago'
    """
    seconds = int(((now or datetime.now(UTC)) - moment).total_seconds())
    for size, unit in _UNITS:
        count = seconds // size
        if count >= 1:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def shape(sizes: Sequence[int] | None) -> str:
    """Write a shape."""
    return " × ".join(map(str, sizes)) if sizes else "—"


def numbers(values: Sequence[int]) -> str:
    """Write a rising list of numbers, runs of them joined.

    Example:
        >>> numbers([0, 1, 2, 5])
        '0–2, 5'
    """
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs)
