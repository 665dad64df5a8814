"""Errors as RFC 9457 ``application/problem+json``.

The ``type`` of a problem is ``urn:preshuffle:problem:<kind>``; the kinds are the keys of ``KINDS``. A client tells
problems apart by ``type``, never by the words of ``title`` or ``detail``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from preshuffle.api.errors import QuotaError, StoreError, StoreFullError
from preshuffle.registry.base.errors import (
    FieldProblem,
    LayoutError,
    NoRecipeError,
    PreshuffleError,
    QueryError,
    first_problems,
)
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.values.finding import FindingCode
from preshuffle.registry.values.report import Verdict

log = logging.getLogger("preshuffle.api")

PROBLEM_TYPE: Final = "application/problem+json"
URN: Final = "urn:preshuffle:problem:"

KINDS: Final[Mapping[str, tuple[int, str]]] = {
    "malformed-json": (400, "The body is not JSON"),
    "json-too-deep": (400, "The body is nested too deeply"),
    "malformed-request": (400, "The request is not valid HTTP"),
    "unauthorized": (401, "A token is needed"),
    "forbidden": (403, "The token does not permit this"),
    "cross-site": (403, "Another site's page sent this request"),
    "no-recipe": (404, "No recipe answers this query"),
    "not-found": (404, "This path does not exist"),
    "unknown-book": (404, "No book of this digest is known"),
    "unknown-tables": (404, "No kernel tables of this version are known"),
    "unknown-conformance": (404, "No conformance report of this AITER build is known"),
    "unknown-schema": (404, "No schema has this name"),
    "unknown-deployment": (404, "No deployment of this name is known"),
    "method-not-allowed": (405, "This method is not allowed here"),
    "request-timeout": (408, "The request did not arrive in time"),
    "tables-exist": (409, "Other kernel tables exist for this version"),
    "precondition-failed": (412, "The resource has changed since"),
    "body-too-large": (413, "The body is too large"),
    "misdirected": (421, "This service does not answer for this host"),
    "unsupported-media-type": (415, "The body's media type is not understood"),
    "invalid-input": (422, "The input is not valid"),
    "head-too-large": (431, "The request's headers are too large"),
    "internal": (500, "Internal error of the service"),
    "incomplete-deployment": (503, "Not all stages of a pipeline have reported"),
    "unhealthy-deployment": (503, "The deployment computes wrong answers, or cannot work"),
    "budget-exhausted": (503, "The request has used up its computing time"),
    "interrupted": (503, "The work was stopped before it ended"),
    "busy": (503, "The service has too much to do"),
    "store-unavailable": (503, "The store does not answer"),
    "too-many-listeners": (503, "Too many clients listen for events"),
    "store-full": (507, "The store's disk is full"),
    "quota-exceeded": (507, "No more reports can be stored"),
    "tables-full": (507, "No more kernel tables can be stored"),
}
_BY_STATUS: Final = {404: "not-found", 405: "method-not-allowed"}


class FieldFault(Frozen):
    """One field of the input that is wrong."""

    field: str = Field(description="Path of the field, dots between its parts")
    message: str
    valid: tuple[str, ...] = Field(default=(), description="What would be valid, where that is a short list")


class NearestRule(Frozen):
    """Rule that did not match, and why."""

    rule: str
    recipe: str
    why_not: str


class Problem(Frozen):
    """An error, as RFC 9457 writes it.

    ``problems`` goes with bad input, ``nearest`` and ``missing`` with no recipe, ``verdict`` and ``codes`` with an
    unhealthy deployment.
    """

    type: str = Field(examples=[f"{URN}no-recipe"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="The requested path")
    problems: tuple[FieldFault, ...] | None = None
    nearest: tuple[NearestRule, ...] | None = None
    missing: tuple[str, ...] | None = None
    verdict: Verdict | None = None
    codes: tuple[FindingCode, ...] | None = Field(default=None, description="Codes of the errors that were found")


class ProblemError(Exception):
    """Answers a request with a problem."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        problems: Sequence[FieldProblem] | None = None,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        """Take a kind of ``KINDS``, a sentence, and the kind's members."""
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members
        if problems is not None:
            faults = [FieldFault(field=p.field, message=p.message, valid=p.valid) for p in problems]
            self.members["problems"] = tuple(faults)

    def problem(self, instance: str) -> Problem:
        """Return the problem of a request for ``instance`` (a path)."""
        status, title = KINDS[self.kind]
        return Problem(
            type=URN + self.kind,
            title=title,
            status=status,
            detail=self.detail,
            instance=quote(instance, safe="/~@:!$&'()*+,;="),
            **self.members,
        )


def as_problem(error: PreshuffleError) -> ProblemError:
    """Return the problem of an error of registry or store."""
    match error:
        case QueryError():
            return invalid_input(error.problems)
        case NoRecipeError():
            nearest = tuple(NearestRule(rule=n.rule, recipe=n.recipe, why_not=n.why_not) for n in error.nearest)
            return ProblemError("no-recipe", error.message, nearest=nearest, missing=error.missing)
        case LayoutError():
            return ProblemError("invalid-input", str(error), problems=[])
        case QuotaError():
            return ProblemError("quota-exceeded", str(error))
        case StoreFullError():
            log.error("%s", error)
            return ProblemError("store-full", str(error), headers={"Retry-After": "60"})
        case StoreError():
            log.error("%s", error)
            return ProblemError("store-unavailable", str(error), headers={"Retry-After": "5"})
        case _:
            log.error("%s", error)
            return ProblemError("internal", "this request failed; the service's log says more")


def invalid_input(problems: Sequence[FieldProblem]) -> ProblemError:
    """Return the problem of an input with wrong fields."""
    detail = "; ".join(str(problem) for problem in problems[:8])
    return ProblemError("invalid-input", detail, problems=first_problems(problems))


def problem_response(error: ProblemError, request: Request) -> Response:
    """Return the response of a problem."""
    problem = error.problem(request.url.path)
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, problem.status, headers=error.headers, media_type=PROBLEM_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""
    app.add_exception_handler(ProblemError, _from_problem)
    app.add_exception_handler(PreshuffleError, _from_preshuffle)
    app.add_exception_handler(RequestValidationError, _from_validation)
    app.add_exception_handler(HTTPException, _from_http)
    app.add_exception_handler(Exception, _from_anything)


async def _from_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_response(error, request)


async def _from_preshuffle(request: Request, error: Exception) -> Response:
    assert isinstance(error, PreshuffleError)
    return problem_response(as_problem(error), request)


async def _from_validation(request: Request, error: Exception) -> Response:
    """Answer wrong path or query parameters, which FastAPI validated."""
    assert isinstance(error, RequestValidationError)
    problems = [
        FieldProblem(".".join(str(part) for part in item["loc"][1:]), _sentence(item)) for item in error.errors()
    ]
    return problem_response(invalid_input(problems), request)


def _sentence(item: Mapping[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        return "unknown parameter"
    text = str(item["msg"])
    return f"{text[:1].lower()}{text[1:]}, found {item['input']!r}"


async def _from_http(request: Request, error: Exception) -> Response:
    """Answer an unknown path or method, which the router refused."""
    assert isinstance(error, HTTPException)
    kind = _BY_STATUS.get(error.status_code)
    if kind is None:
        log.error("unexpected HTTP error %s: %s", error.status_code, error.detail)
        kind = "internal"
    headers = dict(error.headers or {})
    if kind == "method-not-allowed":
        headers["Allow"] = allowed_methods(request)
    detail = {
        "not-found": f"no such path: {request.url.path}",
        "method-not-allowed": f"{request.method} is not allowed here; valid: {headers.get('Allow')}",
    }.get(kind, "this request failed; the service's log says more")
    return problem_response(ProblemError(kind, detail, headers=headers), request)


def allowed_methods(request: Request) -> str:
    """Return ``Allow``: the methods of every route with the request's path.

    The router itself names one route's.
    """
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    methods = {method for route in routes for method in getattr(route, "methods", None) or ()}
    return ", ".join(sorted(methods or {"GET", "HEAD"}))  # a mount (the static files) has none of its own


async def _from_anything(request: Request, error: Exception) -> Response:
    """Answer an unexpected error; its traceback goes to the log alone."""
    return problem_response(ProblemError("internal", "this request failed; the service's log says more"), request)
