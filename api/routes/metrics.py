"""``/metrics``: metrics in Prometheus' text format."""

from __future__ import annotations

from enum import Enum
from typing import Final

from fastapi import APIRouter
from prometheus_client.registry import Collector
from starlette.responses import Response

from preshuffle.api.store import in_thread
from preshuffle.api.web import METRICS_TYPE, FleetCounts, Metrics, problems

METRICS_PATH: Final = "/metrics"
TAGS: Final[list[str | Enum]] = ["health"]


def router(metrics: Metrics, fleet: FleetCounts, *more: Collector) -> APIRouter:
    """Return the route."""
    routes = APIRouter()

    @routes.get(
        METRICS_PATH,
        tags=TAGS,
        operation_id="metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={
            200: {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **problems("store-unavailable"),
        },
    )
    async def text() -> Response:
        return Response(await in_thread(metrics.text, fleet, *more), media_type=METRICS_TYPE)

    return routes
