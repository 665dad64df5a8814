"""Refusal of query parameters that are given twice."""

from __future__ import annotations

from collections import Counter
from typing import Final
from urllib.parse import parse_qsl

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from preshuffle.api.web.problem import invalid_input
from preshuffle.registry.base.errors import FieldProblem

REPEATABLE: Final = frozenset({"env", "label"})
"""Parameters that are lists, wherever they occur."""


def install(app: FastAPI) -> None:
    """Make each route refuse a parameter that is given twice.

    A framework takes one of the values without a word, and the caller believes in the other.
    """
    for route in app.router.routes:
        if isinstance(route, Route):
            route.app = _Checked(route.app)


class _Checked:
    """ASGI application of one route, behind the check."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on.

        Raises:
            ProblemError: 422 names the parameters.
        """
        query = scope.get("query_string", b"")
        if b"&" in query:
            _check(query.decode("latin-1"))
        await self._app(scope, receive, send)


def _check(query: str) -> None:
    counts = Counter(name for name, _ in parse_qsl(query, keep_blank_values=True))
    twice = [name for name, count in counts.items() if count > 1 and name not in REPEATABLE]
    if twice:
        raise invalid_input([FieldProblem(name, "given twice") for name in twice])
