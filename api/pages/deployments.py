"""Pages of deployments: the list, and one deployment.

The list is filtered by state and name; one deployment is shown with its bytes, kernels and history.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import FastAPI, Query
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.answers import Answers, DeploymentView
from preshuffle.api.fleet import STATES, state_rank
from preshuffle.api.pages.formats import url
from preshuffle.api.pages.layer_section import sections
from preshuffle.api.pages.render import Renderer
from preshuffle.api.pages.troubles import MOST, Trouble, fixes, troubles
from preshuffle.api.routes import deployments
from preshuffle.api.store import Store, conformance_store, in_thread, state_since

RECENT: Final = 12
"""Changes that the page of a deployment shows."""
LATELY: Final = 5
"""Changes that the page of all deployments shows."""


def install(app: FastAPI, store: Store, answers: Answers, render: Renderer) -> None:
    """Add the pages."""

    @app.get("/", include_in_schema=False)
    async def index(request: Request, params: Annotated[deployments.PageParams, Query()]) -> Response:
        context = await in_thread(_index, store, answers, params)
        base = str(request.base_url).rstrip("/")
        return render("index.html", place="deployments", base=base, example=deployments.EXAMPLE, **context)

    @app.get("/deployments/{name}", include_in_schema=False)
    async def deployment(
        request: Request, name: deployments.Name, seen: Annotated[str, Query(max_length=128)] = ""
    ) -> Response:
        brief = request.headers.get("hx-request") == "true"  # only what changes by itself is taken from the answer
        return await in_thread(_deployment, store, answers, render, name, seen, brief)


def _index(store: Store, answers: Answers, params: deployments.PageParams) -> dict[str, Any]:
    after = deployments.read_cursor(params.cursor) if params.cursor else ""
    page = deployments.list_page(store, answers, params.limit, after, params.states, params.name)
    tally = store.tally(params.name)
    limit = None if params.limit == deployments.PageParams.model_fields["limit"].default else params.limit
    filters = {"state": params.state, "name": params.name, "limit": limit}
    chips = [("", sum(tally.values())), *((state, tally[state]) for state in reversed(STATES))]
    return {
        "page": page,
        "first": not after,
        "params": params,
        "filtered": bool(params.states or params.name),
        "here": url("/", cursor=params.cursor, **filters),
        "start": url("/", **filters),
        "further": url("/", cursor=page.next, **filters) if page.next else None,
        "chips": [(state, count, url("/", state=state, name=params.name, limit=limit)) for state, count in chips],
        "recent": store.history(LATELY).events,
        "matching": sum(count for state, count in tally.items() if not params.states or state in params.states),
    }


def _checked(store: Store, view: DeploymentView, registry_digest: str) -> list[tuple[str, str, str]]:
    """Return for each AITER that replicas run its name, what is known of it, and the report's build."""
    named = [
        replica.aiter_build or next((group.observation.query.aiter for group in replica.groups), None)
        for replica in view.replicas
    ]
    builds = list(dict.fromkeys(build for build in named if build))
    shown = []
    for build, report in conformance_store.find(store, builds).items():
        if report is None:
            shown.append((build, "nobody has held the book against this build", ""))
            continue
        other = "" if report.registry_digest == registry_digest else ", with another book"
        found = "" if report.verdict == "agrees" else "contradicts the book: "
        shown.append((build, f"{found}{report.summary}{other}", report.build))
    return shown


def _deployment(store: Store, answers: Answers, render: Renderer, name: str, seen: str, brief: bool) -> Response:
    view = deployments.find(store, answers, name)
    events = store.history(RECENT, subject=name)
    shown = () if brief else sections(view, answers.registry)
    found: tuple[Trouble, ...] = ()
    if not brief:
        with store.transaction() as connection:
            found = troubles(view, shown, state_since(connection, name))
    now = f"{view.revision}-{answers.registry.digest[-12:]}"
    return render(
        "deployment.html",
        place="deployments",
        view=view,
        replicas=sorted(view.replicas, key=lambda replica: -state_rank(replica.state)),
        sections=shown,
        troubles=found,
        fixes=fixes(found),
        most=MOST,
        checked=_checked(store, view, answers.registry.digest),
        events=events,
        now=seen or now,
        outdated=bool(seen) and seen != now,
    )
