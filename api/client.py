"""The service from Python: typed by the registry's own models, and answered from the embedded book where it is away.

An engine asks at start-up and must start without us too: what the service cannot be asked for, the book that is
installed here answers, and the reply says so (``Reply.source``). Nothing but a wrong question raises.

    >>> from preshuffle.api.client import Client
    >>> from preshuffle.registry import Query
    >>> with Client("http://127.0.0.1:9") as client:  # nobody listens there
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
_MOST_KEPT: Final = 256
_LONGEST_URL: Final = 6000


class ClientError(PreshuffleError, RuntimeError):
    """The service refused: the token, or a condition such as ``If-Match``; ``status`` is HTTP's."""

    def __init__(self, status: int, detail: str) -> None:
        """Keep both."""
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """What was answered, and by whom.

    Attributes:
        value: the answer.
        source: ``service``, or ``embedded``: the book installed here, because the service could not be asked.
        why: why it could not be asked.
    """

    value: T
    source: Literal["service", "embedded"] = "service"
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a report.

    Attributes:
        receipt: the service's; None where it could not be told.
        report: the worst of the groups' checks by the embedded book, where the service could not be told.
    """

    receipt: Receipt | None = None
    report: Report | None = None


class Client:
    """Asks one service. Safe to share between threads.

    Args:
        url: where the service answers.
        token: bearer token, where it asks for one.
        timeout: seconds for a whole request.
        registry: what answers where the service cannot; the packaged book by default, loaded when first needed.
        quiet: write no line to the log where the service is away.
        transport: of httpx, where connections need something special (a proxy, a socket).
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
        """Connect when first asked."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url.rstrip("/"), timeout=timeout, headers=headers, transport=transport)
        self._registry = registry
        self._level = logging.DEBUG if quiet else logging.WARNING
        self._kept: OrderedDict[str, tuple[str, Decision]] = OrderedDict()
        self._lock = Lock()

    def __enter__(self) -> Client:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def resolve(self, query: Query) -> Reply[Decision]:
        """Decide a query. A decision that was answered before is asked for by its ETag only.

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
        """Report what a replica did. Where the service is away, the groups are checked here instead.

        Raises:
            QueryError: the report is not valid.
            ClientError: the token may not report this deployment, or it is not what ``if_match`` names.
        """
        said: dict[str, Any] = {"node": node, "aiter_build": aiter_build, "registry_digest": registry_digest}
        said |= {"ttl_s": ttl_s, "groups": tuple(groups)}
        report = ReplicaReport.parse({field: value for field, value in said.items() if value is not None})
        body = report.model_dump(mode="json", exclude_unset=True)
        headers = {"If-Match": if_match} if if_match else {}

        def tell() -> Told:
            answer = self._send("PUT", _path(name), json=body, params={"replica": replica}, headers=headers)
            return Told(receipt=Receipt.model_validate_json(answer.content))

        def look(registry: Registry) -> Told:
            reports = [registry.check(group.observation) for group in report.groups]
            found = tuple(finding for one in reports for finding in one.findings)
            return Told(report=Report(verdict=worst(one.verdict for one in reports), findings=found))

        return self._or_embedded(tell, look)

    def heartbeat(self, name: str, replica: int = 0) -> Reply[Beat | None]:
        """Say that a replica lives. ``value`` is None where the service could not be told.

        Raises:
            ClientError: the token may not report this deployment; 404 the replica must report first.
        """

        def beat() -> Beat | None:
            answer = self._send("POST", f"{_path(name)}/heartbeat", params={"replica": replica})
            return Beat.model_validate_json(answer.content)

        return self._or_embedded(beat, None)

    def _or_embedded(self, ask: Callable[[], T], embedded: Callable[[Registry], T] | None) -> Reply[T]:
        try:
            return Reply(ask())
        except _AwayError as away:
            log.log(self._level, "%s; %s", away, "the embedded book answers" if embedded else "nothing was told")
            value = embedded(self._book()) if embedded else None
            return Reply(value, "embedded", str(away))  # type: ignore[arg-type]

    def _resolve(self, query: Query) -> Decision:
        params = _params(query)
        key = urlencode(params)
        if len(key) > _LONGEST_URL:
            body = query.model_dump(mode="json", exclude_unset=True)
            return Decision.model_validate_json(self._send("POST", "/v1/resolve", json=body).content)
        with self._lock:
            kept = self._kept.get(key)
        headers = {"If-None-Match": kept[0]} if kept else {}
        answer = self._send("GET", "/v1/resolve", params=params, headers=headers)
        if answer.status_code == 304 and kept is not None:
            return kept[1]
        decision = Decision.model_validate_json(answer.content)
        if etag := answer.headers.get("etag"):
            with self._lock:
                self._kept[key] = (etag, decision)
                while len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
        return decision

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send one request.

        Raises:
            _AwayError: there was no answer, or none that is ours.
        """
        try:
            answer = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise _AwayError(f"{self._http.base_url} does not answer: {error or type(error).__name__}") from None
        if answer.status_code < 400:
            return answer
        _raise(answer, f"{method} {self._http.base_url}{path}")
        raise AssertionError

    def _book(self) -> Registry:
        if self._registry is None:
            self._registry = Registry.default()
        return self._registry


class _AwayError(Exception):
    """The service cannot be asked."""


def read_problem(answer: httpx.Response) -> dict[str, Any] | None:
    """Return the problem that an answer is, or None where it is none of preshuffle's."""
    try:
        problem = answer.json()
    except ValueError:
        return None
    return problem if isinstance(problem, dict) and {"type", "detail"} <= problem.keys() else None


def not_ours(answer: httpx.Response, what: str) -> str:
    """Say that something else answered."""
    return f"{what} was answered with {answer.status_code}, and not by preshuffle"


def faults_of(problem: Mapping[str, Any]) -> list[FieldProblem]:
    """Return the fields that a problem names, as the registry itself would."""
    faults = problem.get("problems") or ()
    return [FieldProblem(one["field"], one["message"], tuple(one.get("valid", ()))) for one in faults]


def _raise(answer: httpx.Response, what: str) -> None:
    """Raise what a problem stands for.

    Raises:
        PreshuffleError: of the kind that the registry itself would raise.
        _AwayError: the fault is the service's (5xx), or what answers is no preshuffle.
    """
    problem = read_problem(answer)
    if problem is None:
        raise _AwayError(not_ours(answer, what))
    kind, detail = str(problem["type"]).rpartition(":")[2], str(problem["detail"])
    if answer.status_code >= 500 or answer.status_code in (408, 429):
        raise _AwayError(f"{what} was answered with {answer.status_code}: {detail}")
    if kind == "no-recipe":
        nearest = [NearMatch(item["rule"], item["recipe"], item["why_not"]) for item in problem.get("nearest") or ()]
        raise NoRecipeError(detail, nearest, problem.get("missing") or ())
    if kind == "invalid-input" and (faults := faults_of(problem)):
        raise QueryError(faults)
    raise ClientError(answer.status_code, detail)


def _params(query: Query) -> list[tuple[str, str]]:
    """Return a query as the parameters of a GET."""
    said = query.model_dump(mode="json", exclude_unset=True)
    params: list[tuple[str, str]] = []
    for name, value in said.items():
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
