"""Python client of the service, with the embedded book as fallback.

An engine asks at start-up and must start without the service too: while it is unreachable, the book that is installed
here answers, and the reply says so (``Reply.source``). Only an invalid or forbidden request raises.

    >>> from preshuffle.api.client import Client
    >>> from preshuffle.registry import Query
    >>> with Client("http://127.0.0.1:9") as client:  # no service listens there
    ...     reply = client.resolve(Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2"))
    >>> reply.source, reply.value.recipe
    ('embedded', 'mxfp4.sep16')
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import quote, urlencode

import httpx

from preshuffle.api.fleet import Beat, Group, Receipt, ReplicaReport
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import FieldProblem, NearMatch, NoRecipeError, PreshuffleError, QueryError
from preshuffle.registry.values.decision import Decision
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.query import Query
from preshuffle.registry.values.report import Report, worst

__all__ = ["Client", "ClientError", "Reply", "Told", "faults_of", "not_ours", "read_problem"]

log = logging.getLogger("preshuffle.client")

T = TypeVar("T")
_MAX_CACHED: Final = 256
"""Decisions that one client caches, with their ETags."""
_MAX_QUERY_STRING: Final = 6000
"""Characters of a query string; longer queries are posted."""


class ClientError(PreshuffleError, RuntimeError):
    """Refusal by the service, of the token or of a precondition (``If-Match``).

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, status: int, detail: str) -> None:
        """Store the HTTP status and the message."""
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """Answer, with its source.

    Attributes:
        value: the answer.
        source: ``service``, or ``embedded``: the book installed here, because the service was unavailable.
        why: why it was unavailable; None if it answered.
    """

    value: T
    source: Literal["service", "embedded"] = "service"
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """Result of reporting a replica.

    Attributes:
        receipt: acknowledgement of the service; None if it was unavailable.
        report: otherwise, check by the embedded book: all groups' findings and the worst verdict.
    """

    receipt: Receipt | None = None
    report: Report | None = None


class Client:
    """Thread-safe client of one service.

    Args:
        url: of the service.
        token: bearer token, if the service requires one.
        timeout: seconds for a whole request.
        registry: fallback while the service is unavailable; by default the packaged book, loaded on first use.
        quiet: log unavailability at debug level only.
        transport: of httpx, for special connections (a proxy, a socket).
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 2.0,
        registry: Registry | None = None,
        transport: httpx.BaseTransport | None = None,
        quiet: bool = False,
    ) -> None:
        """Prepare; the first request connects."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url.rstrip("/"), timeout=timeout, headers=headers, transport=transport)
        self._registry = registry
        self._level = logging.DEBUG if quiet else logging.WARNING
        self._decisions: OrderedDict[str, tuple[str, Decision]] = OrderedDict()  # by query string, with the ETag
        self._lock = Lock()

    def __enter__(self) -> Client:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def resolve(self, query: Query) -> Reply[Decision]:
        """Resolve a query to a decision; cached decisions are revalidated by ETag.

        Raises:
            NoRecipeError: no rule answers.
            QueryError: the query is not valid.
            ClientError: the token is missing or wrong.
        """
        return self._or_embedded(lambda: self._resolve(query), lambda registry: registry.resolve(query))

    def check(self, observation: Observation) -> Reply[Report]:
        """Check an observation.

        Raises:
            QueryError: the observation is not valid.
            ClientError: the token is missing or wrong.
        """
        body = observation.model_dump(mode="json", exclude_unset=True)
        return self._or_embedded(
            lambda: Report.model_validate_json(self._send("POST", "/v1/check", json=body).content),
            lambda registry: registry.check(observation),
        )

    def report(
        self,
        name: str,
        groups: Sequence[Group],
        *,
        replica: int = 0,
        node: str | None = None,
        aiter_build: str | None = None,
        registry_digest: str | None = None,
        ttl_s: int | None = None,
        if_match: str | None = None,
    ) -> Reply[Told]:
        """Report a replica's groups; while the service is unavailable, check them here.

        Raises:
            QueryError: the report is not valid.
            ClientError: the token may not report this deployment, or it is not what ``if_match`` names.
        """
        fields: dict[str, Any] = {"node": node, "aiter_build": aiter_build, "registry_digest": registry_digest}
        fields |= {"ttl_s": ttl_s, "groups": tuple(groups)}
        report = ReplicaReport.parse({field: value for field, value in fields.items() if value is not None})
        body = report.model_dump(mode="json", exclude_unset=True)
        headers = {"If-Match": if_match} if if_match else {}

        def put() -> Told:
            response = self._send("PUT", _path(name), json=body, params={"replica": replica}, headers=headers)
            return Told(receipt=Receipt.model_validate_json(response.content))

        def check(registry: Registry) -> Told:
            checks = [registry.check(group.observation) for group in report.groups]
            findings = tuple(finding for group in checks for finding in group.findings)
            notes = tuple(dict.fromkeys(note for group in checks for note in group.notes))
            verdict = worst(group.verdict for group in checks)
            reads = tuple(dict.fromkeys(read for group in checks for read in group.reads))
            return Told(report=Report(verdict=verdict, findings=findings, notes=notes, reads=reads))

        return self._or_embedded(put, check)

    def heartbeat(self, name: str, replica: int = 0) -> Reply[Beat | None]:
        """Send a replica's heartbeat.

        The reply's value is None if the service is unavailable.

        Raises:
            ClientError: the token may not report this deployment; 404 the replica must report first.
        """

        def beat() -> Beat | None:
            response = self._send("POST", f"{_path(name)}/heartbeat", params={"replica": replica})
            return Beat.model_validate_json(response.content)

        return self._or_embedded(beat, None)

    def _or_embedded(self, request: Callable[[], T], embedded: Callable[[Registry], T] | None) -> Reply[T]:
        try:
            return Reply(request())
        except _UnavailableError as error:
            log.log(self._level, "%s; %s", error, "the embedded book answers" if embedded else "no heartbeat was sent")
            value = embedded(self._fallback()) if embedded else None
            return Reply(value, "embedded", str(error))  # type: ignore[arg-type]

    def _resolve(self, query: Query) -> Decision:
        params = _params(query)
        key = urlencode(params)
        if len(key) > _MAX_QUERY_STRING:
            body = query.model_dump(mode="json", exclude_unset=True)
            return Decision.model_validate_json(self._send("POST", "/v1/resolve", json=body).content)
        with self._lock:
            cached = self._decisions.get(key)
        headers = {"If-None-Match": cached[0]} if cached else {}
        response = self._send("GET", "/v1/resolve", params=params, headers=headers)
        if response.status_code == 304 and cached is not None:
            return cached[1]
        decision = Decision.model_validate_json(response.content)
        if etag := response.headers.get("etag"):
            with self._lock:
                self._decisions[key] = (etag, decision)
                while len(self._decisions) > _MAX_CACHED:
                    self._decisions.popitem(last=False)
        return decision

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send one request.

        Raises:
            _UnavailableError: no response, or none of preshuffle's.
        """
        try:
            response = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise _UnavailableError(f"{self._http.base_url} does not answer: {error or type(error).__name__}") from None
        if response.status_code < 400:
            return response
        _raise(response, f"{method} {self._http.base_url}{path}")
        raise AssertionError

    def _fallback(self) -> Registry:
        if self._registry is None:
            self._registry = Registry.default()
        return self._registry


class _UnavailableError(Exception):
    """The service is unavailable."""


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


def _raise(response: httpx.Response, request: str) -> None:
    """Raise the exception that an HTTP problem stands for.

    Raises:
        PreshuffleError: of the kind that the registry itself would raise.
        _UnavailableError: an error of the service (5xx, 408, 429), or the response is not preshuffle's.
    """
    problem = read_problem(response)
    if problem is None:
        raise _UnavailableError(not_ours(response, request))
    kind, detail = str(problem["type"]).rpartition(":")[2], str(problem["detail"])
    if response.status_code >= 500 or response.status_code in (408, 429):
        raise _UnavailableError(f"{request} was answered with {response.status_code}: {detail}")
    if kind == "no-recipe":
        nearest = [NearMatch(item["rule"], item["recipe"], item["why_not"]) for item in problem.get("nearest") or ()]
        raise NoRecipeError(detail, nearest, problem.get("missing") or ())
    if kind == "invalid-input" and (faults := faults_of(problem)):
        raise QueryError(faults)
    raise ClientError(response.status_code, detail)


def _params(query: Query) -> list[tuple[str, str]]:
    """Return a query as parameters of a GET request."""
    fields = query.model_dump(mode="json", exclude_unset=True)
    params: list[tuple[str, str]] = []
    for name, value in fields.items():
        if value is None:
            continue
        if name == "env":
            params += [("env", f"{key}={text}") for key, text in sorted(value.items())]
        elif name == "tokens":
            params.append((name, ",".join(map(str, value))))
        elif name == "engine":
            params.append((name, str(query.engine)))
        else:
            params.append((name, str(value).lower() if isinstance(value, bool) else str(value)))
    return params


def _path(name: str) -> str:
    return f"/v1/deployments/{quote(name, safe='')}"
