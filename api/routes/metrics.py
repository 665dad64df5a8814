"""``/metrics``: what Prometheus scrapes."""

from __future__ import annotations

from enum import Enum
from typing import Final

from anyio import to_thread
from fastapi import FastAPI
from starlette.responses import Response

from preshuffle.api.web import METRICS_TYPE, Metrics, problems

PATH: Final = "/metrics"
TAGS: Final[list[str | Enum]] = ["health"]


def install(app: FastAPI, metrics: Metrics) -> None:
    """Add the route."""

    @app.get(
        PATH,
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
        return Response(await to_thread.run_sync(metrics.text), media_type=METRICS_TYPE)
