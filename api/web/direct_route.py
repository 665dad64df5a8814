"""FastAPI route without dependencies and validation, for frequent requests."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response


class DirectRoute(APIRoute):
    """Documented route whose endpoint takes the request and returns the response.

    Nothing is injected, validated or serialised. One declaration serves the OpenAPI document and the requests.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint itself."""
        return self.endpoint
