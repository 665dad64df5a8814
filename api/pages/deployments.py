"""Pages of deployments: the list, and one deployment.

The list is filtered by state and name; one deployment is shown with its bytes, kernels and history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from preshuffle.api.routes import deployments, fleet
from preshuffle.api.store import Store, conformance_store, in_thread

RECENT: Final = 12
"""Changes that the page of a deployment shows."""
_MOST_GROUPS: Final = 100
LATELY: Final = 5
"""Changes that the page of all deployments shows."""
_HEADS: Final = (
    ("Deployment", "name"),
    ("State", "state"),
    ("Why", "code"),
    ("Runs", "model"),
    ("Nodes, last seen", "node"),
    ("Layers, recipe decided, w13 applied", ""),
)
"""Columns of the list, and what each is sorted by."""
_FALLING: Final = ("state", "seen")
"""Orders that begin with the largest."""
_SORTS: Final = (
    ("", "worst, then longest"),
    ("since", "longest in its state"),
    ("-since", "latest change of state"),
    ("name", "name"),
    ("node", "node"),
    ("model", "model"),
    ("arch", "GPU"),
    ("engine", "engine"),
    ("code", "finding"),
    ("owner", "owner"),
    ("seen", "last seen"),
)
_GROUPS: Final = (
    ("", "nothing"),
    ("state", "state"),
    ("node", "node"),
    ("model", "model"),
    ("arch", "GPU"),
    ("engine", "engine"),
    ("code", "finding"),
    ("owner", "owner"),
)
_COMPLETENESS: Final = (("", "any"), ("true", "some have not reported"), ("false", "all have reported"))


def install(app: FastAPI, store: Store, answers: Answers, render: Renderer) -> None:
    """Add the pages."""

    @app.get("/", include_in_schema=False)
    async def index(request: Request, params: Annotated[fleet.FleetParams, Query()]) -> Response:
        context = await in_thread(_index, store, answers, params)
        return render(
            "index.html", place="deployments", base=render.base(request), example=deployments.EXAMPLE, **context
        )

    @app.get("/deployments/{name}", include_in_schema=False)
    async def deployment(
        request: Request, name: deployments.Name, seen: Annotated[str, Query(max_length=128)] = ""
    ) -> Response:
        brief = request.headers.get("hx-request") == "true"  # only what changes by itself is taken from the answer
        return await in_thread(_deployment, store, answers, render, name, seen, brief)

    @app.get("/deployments/{name}/marks", include_in_schema=False)
    async def marks(name: deployments.Name) -> Response:
        view = await in_thread(deployments.find, store, answers, name)
        return render("marks.html", place="deployments", view=view)


def _index(store: Store, answers: Answers, params: fleet.FleetParams) -> dict[str, Any]:
    page = fleet.list_page(store, answers, params)
    chosen = params.chosen(answers.registry.book)
    counts, silenced = store.count(chosen)
    dumped = params.model_dump(exclude_defaults=True, exclude={"cursor"})
    given = {field: value for field, value in dumped.items() if value not in ("", (), ("",))}

    def here(**changes: Any) -> str:
        """Return the link of this list with other parameters."""
        return url("/", **{**given, **changes})

    chips = [
        ("", sum(counts.values()), here(state=None, silenced=None)),
        *((state, counts[state], here(state=state, silenced=None)) for state in reversed(STATES)),
    ]
    sort = "" if params.sort == "state" else params.sort
    return {
        "page": page,
        "first": params.cursor is None,
        "params": params,
        "filtered": bool(given.keys() - {"limit", "sort", "group_by"}),
        "here": here(cursor=params.cursor),
        "start": here(),
        "further": here(cursor=page.next) if page.next else None,
        "chips": chips,
        "silenced": silenced,
        "silenced_link": here(state=None, silenced=True),
        "completeness": _COMPLETENESS,
        "sorts": _choices(_SORTS, sort),
        "sort": sort,
        "groupings": _choices(_GROUPS, params.group_by),
        "groups": [(group, _link(group.value, params.group_by, here)) for group in (page.groups or ())[:_MOST_GROUPS]],
        "group_title": dict(_choices(_GROUPS, params.group_by))[params.group_by],
        "narrowed": bool(given.keys() - {"limit", "name", "state", "silenced"}),
        "heads": [
            (title, by, here(sort=_next_sort(by, sort or "state")), _sorted(by, sort or "state"))
            for title, by in _HEADS
        ],
        "recent": store.history(LATELY).events,
        "matching": sum(count for state, count in counts.items() if not params.states or state in params.states),
    }


def _choices(known: Sequence[tuple[str, str]], given: str) -> list[tuple[str, str]]:
    """Return values of a select with their titles; one that is given and not listed, too."""
    return [*known, *([] if given in dict(known) else [(given, given)])]


def _link(value: str, group_by: str, here: Callable[..., str]) -> str | None:
    """Return the link to one group's deployments; None for those without a value."""
    by, _, label = group_by.partition(":")
    if not value:
        return None
    return here(group_by=None, **{by: f"{label}={value}" if by == "label" else value})


def _next_sort(by: str, sort: str) -> str | None:
    """Return the order of a column's link: the other way round where it is sorted by that already."""
    chosen = f"-{by}" if sort == by else by
    return None if chosen == "state" else chosen


def _sorted(by: str, sort: str) -> str | None:
    if not by or sort.removeprefix("-") != by:
        return None
    return "descending" if sort.startswith("-") is not (by in _FALLING) else "ascending"


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
        found = "contradicts the book: " if report.verdict == "disagrees" else ""
        shown.append((build, f"{found}{report.summary}{other}", report.build))
    return shown


def _deployment(store: Store, answers: Answers, render: Renderer, name: str, seen: str, brief: bool) -> Response:
    view = deployments.find(store, answers, name)
    events = store.history(RECENT, subject=name)
    shown = () if brief else sections(view, answers.registry)
    found: tuple[Trouble, ...] = ()
    if not brief:
        found = troubles(view, shown, {replica.replica: replica.state_since for replica in view.replicas})
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
