"""Prometheus metrics. Every label has few values (verdicts, codes, route templates); none is a deployment's name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_FAST: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, which no dashboard needs


class Fleet(Protocol):
    """What the store and the book say when Prometheus asks."""

    def deployments(self) -> Mapping[str, int]:
        """Return the number of deployments by state."""

    def findings(self) -> Mapping[str, int]:
        """Return the number of replicas that have a finding, by code."""

    def reloads(self) -> tuple[int, int, bool]:
        """Return the reloads that succeeded and failed, and whether the files as they are now load."""

    def digest(self) -> str:
        """Return the digest of the book that is answered from."""


class Metrics:
    """The metrics of one service."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "preshuffle_http_requests",
            "Requests by route and status",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "preshuffle_http_seconds", "Time to answer, by route", ["route"], buckets=_FAST, registry=self.registry
        )
        self._resolve = Histogram(
            "preshuffle_resolve_seconds",
            "Time that the registry took for a query that it had not answered before",
            buckets=_FAST,
            registry=self.registry,
        )
        self._by_route: dict[tuple[str, str, int], tuple[Callable[[], None], Callable[[float], None]]] = {}
        self.resolved = self._resolve.observe

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        known = self._by_route.get((method, route, status))
        if known is None:
            count = self._requests.labels(method, route, str(status)).inc
            known = self._by_route[method, route, status] = (count, self._seconds.labels(route).observe)
        known[0]()
        known[1](seconds)

    def watch(self, fleet: Fleet) -> None:
        """Ask the fleet whenever Prometheus asks us."""
        self.registry.register(_FleetCollector(fleet))

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _FleetCollector(Collector):
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def describe(self) -> Iterable[Metric]:
        """Say nothing in advance: registering must not ask the store."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Ask."""
        yield _gauges("preshuffle_deployments", "Deployments by state", "verdict", self._fleet.deployments())
        yield _gauges("preshuffle_findings", "Replicas that have a finding", "code", self._fleet.findings())
        good, bad, loads = self._fleet.reloads()
        yield CounterMetricFamily("preshuffle_registry_reloads", "Books that were loaded anew", value=good)
        yield CounterMetricFamily("preshuffle_registry_reload_failures", "Books that did not load", value=bad)
        yield GaugeMetricFamily("preshuffle_registry_loads", "1: the book's files as they are now load", value=loads)
        info = GaugeMetricFamily("preshuffle_registry_info", "The book that is answered from", labels=["digest"])
        info.add_metric([self._fleet.digest()], 1)
        yield info


def _gauges(name: str, text: str, label: str, values: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in sorted(values.items()):
        family.add_metric([value], count)
    return family
