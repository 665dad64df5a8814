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
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack
from urllib.parse import quote, urlencode

from preshuffle.api.client.connection import ConnectionOptions, ServiceConnection
from preshuffle.api.client.problems import UnavailableError
from preshuffle.api.client.replies import Reply, Told, check_embedded, read_receipt
from preshuffle.api.fleet import Beat, Group, PipelineStage, ReplicaReport, report_number
from preshuffle.registry.values.decision import Decision
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.query import Query
from preshuffle.registry.values.report import Report

if TYPE_CHECKING:
    from preshuffle.registry import Registry

log = logging.getLogger("preshuffle.client")

T = TypeVar("T")
_MAX_CACHED: Final = 256
"""Decisions that one client caches, with their ETags."""
_MAX_QUERY_STRING: Final = 6000
"""Characters of a query string; longer queries are posted."""


class Client:
    """Thread-safe client of one service.

    Args:
        url: of the service.
        registry: fallback while the service is unavailable; by default the packaged book, loaded on first use.
        quiet: log unavailability at debug level only.
        connection: ``token``, ``token_file``, ``ca_file``, ``cert_file``, ``key_file``, ``timeout`` and ``transport``,
            as `ConnectionOptions` describes them.
    """

    def __init__(
        self,
        url: str,
        *,
        registry: Registry | None = None,
        quiet: bool = False,
        **connection: Unpack[ConnectionOptions],
    ) -> None:
        """Prepare; the first request connects."""
        self._connection = ServiceConnection(url, **connection)
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
        self._connection.close()

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
            lambda: Report.model_validate_json(self._connection.send("POST", "/v1/check", json=body).content),
            lambda registry: registry.check(observation),
        )

    def report(
        self,
        name: str,
        groups: Sequence[Group],
        *,
        replica: int = 0,
        pipeline: PipelineStage | None = None,
        node: str | None = None,
        aiter_build: str | None = None,
        registry_digest: str | None = None,
        ttl_s: int | None = None,
        labels: Mapping[str, str] | None = None,
        owner: str | None = None,
        link: str | None = None,
        if_match: str | None = None,
    ) -> Reply[Told]:
        """Report a replica's groups; while the service is unavailable, check them here.

        Raises:
            QueryError: the report is not valid.
            ClientError: the token may not report this deployment, or it is not what ``if_match`` names.
        """
        fields: dict[str, Any] = {"node": node, "aiter_build": aiter_build, "registry_digest": registry_digest}
        fields |= {
            "pipeline": pipeline,
            "ttl_s": ttl_s,
            "labels": labels,
            "owner": owner,
            "link": link,
            "groups": tuple(groups),
        }
        report = ReplicaReport.parse({field: value for field, value in fields.items() if value is not None})
        body = report.model_dump(mode="json", exclude_unset=True)
        params = {"replica": report_number(replica, pipeline)}
        headers = {"If-Match": if_match} if if_match else {}

        def put() -> Told:
            response = self._connection.send("PUT", deployment_path(name), json=body, params=params, headers=headers)
            return Told(receipt=read_receipt(response))

        return self._or_embedded(put, lambda registry: check_embedded(registry, report))

    def heartbeat(self, name: str, replica: int = 0, pipeline: PipelineStage | None = None) -> Reply[Beat | None]:
        """Send a replica's heartbeat.

        The reply's value is None if the service is unavailable.

        Raises:
            QueryError: a stage of no replica.
            ClientError: the token may not report this deployment; 404 the replica must report first.
        """

        params = {"replica": report_number(replica, pipeline)}

        def beat() -> Beat | None:
            response = self._connection.send("POST", f"{deployment_path(name)}/heartbeat", params=params)
            return Beat.model_validate_json(response.content)

        return self._or_embedded(beat, None)

    def _or_embedded(self, request: Callable[[], T], embedded: Callable[[Registry], T] | None) -> Reply[T]:
        try:
            return Reply(request())
        except UnavailableError as error:
            log.log(self._level, "%s; %s", error, "the embedded book answers" if embedded else "no heartbeat was sent")
            value = embedded(self._fallback()) if embedded else None
            return Reply(value, "embedded", str(error))  # type: ignore[arg-type]

    def _resolve(self, query: Query) -> Decision:
        params = _params(query)
        key = urlencode(params)
        if len(key) > _MAX_QUERY_STRING:
            body = query.model_dump(mode="json", exclude_unset=True)
            return Decision.model_validate_json(self._connection.send("POST", "/v1/resolve", json=body).content)
        with self._lock:
            cached = self._decisions.get(key)
        headers = {"If-None-Match": cached[0]} if cached else {}
        response = self._connection.send("GET", "/v1/resolve", params=params, headers=headers)
        if response.status_code == 304 and cached is not None:
            return cached[1]
        decision = Decision.model_validate_json(response.content)
        if etag := response.headers.get("etag"):
            with self._lock:
                self._decisions[key] = (etag, decision)
                while len(self._decisions) > _MAX_CACHED:
                    self._decisions.popitem(last=False)
        return decision

    def _fallback(self) -> Registry:
        if self._registry is None:
            from preshuffle.registry import Registry

            self._registry = Registry.default()
        return self._registry


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


def deployment_path(name: str) -> str:
    """Return the path of a deployment."""
    return f"/v1/deployments/{quote(name, safe='')}"
