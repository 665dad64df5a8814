"""Problem documents of the service, as exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from preshuffle.registry.base.errors import FieldProblem, NearMatch, NoRecipeError, PreshuffleError, QueryError


class ClientError(PreshuffleError, RuntimeError):
    """Refusal by the service, of the token or of a precondition (``If-Match``).

    Attributes:
        status: the HTTP status.
        kind: last part of the problem's type, such as ``unknown-deployment``.
    """

    def __init__(self, status: int, detail: str, kind: str = "") -> None:
        """Store the HTTP status, the message and the kind."""
        super().__init__(detail)
        self.status = status
        self.kind = kind


class UnavailableError(Exception):
    """The service is unavailable.

    There was no response, an error of its own, or a response of something else.

    Attributes:
        status: the HTTP status; None without a response.
        retry_after: seconds that it wants to be left alone; None if it did not say.
    """

    def __init__(self, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        """Store the message, the HTTP status and ``Retry-After``."""
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


def read_problem(response: httpx.Response) -> dict[str, Any] | None:
    """Return a response's problem details; None if not preshuffle's."""
    try:
        problem = response.json()
    except ValueError:
        return None
    return problem if isinstance(problem, dict) and {"type", "detail"} <= problem.keys() else None


def not_ours(response: httpx.Response, request: str) -> str:
    """Return the message for a response of something other than preshuffle."""
    return f"{request} was answered with {response.status_code}, and not by preshuffle"


def faults_of(problem: Mapping[str, Any]) -> list[FieldProblem]:
    """Return an HTTP problem's field problems, as the registry raises them."""
    faults = problem.get("problems") or ()
    return [FieldProblem(fault["field"], fault["message"], tuple(fault.get("valid", ()))) for fault in faults]


def raise_problem(response: httpx.Response, request: str) -> None:
    """Raise the exception that an HTTP problem stands for.

    Raises:
        PreshuffleError: of the kind that the registry itself would raise.
        UnavailableError: an error of the service (5xx, 408, 429), or the response is not preshuffle's.
    """
    problem = read_problem(response)
    status, retry_after = response.status_code, retry_after_of(response)
    if problem is None:
        raise UnavailableError(not_ours(response, request), status, retry_after)
    kind, detail = str(problem["type"]).rpartition(":")[2], str(problem["detail"])
    if status >= 500 or status in (408, 429):
        raise UnavailableError(f"{request} was answered with {status}: {detail}", status, retry_after)
    if kind == "no-recipe":
        nearest = [NearMatch(item["rule"], item["recipe"], item["why_not"]) for item in problem.get("nearest") or ()]
        raise NoRecipeError(detail, nearest, problem.get("missing") or ())
    if kind == "invalid-input" and (faults := faults_of(problem)):
        raise QueryError(faults)
    raise ClientError(status, detail, kind)


def retry_after_of(response: httpx.Response, now: datetime | None = None) -> float | None:
    """Return the seconds of ``Retry-After``; None without a valid one.

    It is a number or an HTTP date.

    Example:
        >>> retry_after_of(httpx.Response(503, headers={"Retry-After": "5"}))
        5.0
    """
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
