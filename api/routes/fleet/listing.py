"""``GET /v1/deployments``: the fleet, the worst first."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from preshuffle.api.answers import Answers, DeploymentGroup, DeploymentList, summary
from preshuffle.api.fleet import judge_name
from preshuffle.api.routes.fleet.fleet_params import FleetParams, write_cursor
from preshuffle.api.store import Store, in_thread
from preshuffle.api.web import problems
from preshuffle.registry.base.frozen import FrozenDict

MOST_GROUPS: Final = 500
TAGS: Final[list[str | Enum]] = ["deployments"]


def router(store: Store, answers: Answers) -> APIRouter:
    """Return the route."""
    routes = APIRouter()

    @routes.get(
        "/v1/deployments",
        tags=TAGS,
        operation_id="list_deployments",
        summary="Deployments, the worst first, then the one longest in its state",
        response_model=DeploymentList,
        responses=problems("invalid-input", "store-unavailable"),
    )
    async def listing(params: Annotated[FleetParams, Query()]) -> Response:
        body = await in_thread(_body, store, answers, params)
        return Response(body, media_type="application/json")

    return routes


def _body(store: Store, answers: Answers, params: FleetParams) -> str:
    page = list_page(store, answers, params)
    return page.model_dump_json(exclude={"groups"} if page.groups is None else None)


def list_page(store: Store, answers: Answers, params: FleetParams) -> DeploymentList:
    """Return a page of the list, with groups where they are requested."""
    chosen, order, grouping = params.chosen(answers.registry.book), params.order, params.grouping
    found, place = store.fleet(params.limit, chosen, order, params.place)
    judge = judge_name(answers.registry)
    return DeploymentList(
        deployments=tuple(summary(deployment, judge) for deployment in found),
        next=write_cursor(place) if place else None,
        groups=None
        if grouping is None
        else tuple(
            DeploymentGroup(
                value=group.value,
                deployments=group.deployments,
                states=FrozenDict(group.states),
                silenced=group.silenced,
            )
            for group in store.groups(chosen, *grouping)[:MOST_GROUPS]
        ),
    )
