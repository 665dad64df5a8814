"""Prometheus metrics of requests, decisions and the fleet.

Every label has few values (verdicts, codes, route templates).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

METRICS_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_FILES: Final = {
    "registry": "the book's files",
    "tables": "the files of kernel tables",
    "tokens": "the tokens",
}
_FAST: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, which no dashboard needs


class FleetCounts(Protocol):
    """Counts of the fleet, taken when Prometheus scrapes."""

    def deployments(self) -> Mapping[str, int]:
        """Return the number of deployments by state, without the silenced."""

    def silenced(self) -> int:
        """Return the number of silenced deployments."""

    def findings(self) -> Mapping[str, int]:
        """Return the number of replicas that have a finding, by code."""

    def reloads(self) -> Mapping[str, tuple[int, int, bool]]:
        """Return reload counts (good, failed) and whether the files load, by kind."""

    def digest(self) -> str:
        """Return the digest of the current book."""


@dataclass(slots=True)
class _Times:
    """Histogram of response times; the last count is above all bounds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_FAST) + 1))
    seconds: float = 0.0


class Metrics:
    """Counters and histograms of one service."""

    def __init__(self) -> None:
        """Start at zero."""
        self._answers: Counter[tuple[str, str, int]] = Counter()
        self._times: defaultdict[str, _Times] = defaultdict(_Times)
        self._resolve = Histogram(
            "preshuffle_resolve_seconds",
            "Time that the registry took for a query that it had not answered before",
            buckets=_FAST,
            registry=None,
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one response. On the event loop only: it takes no lock."""
        self._answers[method, route, status] += 1
        times = self._times[route]
        times.counts[bisect_left(_FAST, seconds)] += 1
        times.seconds += seconds

    def decided(self, seconds: float) -> None:
        """Count one new decision. Any thread may call."""
        self._resolve.observe(seconds)

    def text(self, fleet: FleetCounts, *more: Collector) -> bytes:
        """Return these metrics, the fleet's and more in Prometheus' text format."""
        exposition = CollectorRegistry()
        own = (_RequestCollector(self._answers, self._times), self._resolve, _FleetCollector(fleet))
        for collector in (*own, *more):
            exposition.register(collector)
        return generate_latest(exposition)


class _RequestCollector(Collector):
    def __init__(self, answers: Mapping[tuple[str, str, int], int], times: Mapping[str, _Times]) -> None:
        self._answers = answers
        self._times = times

    def collect(self) -> Iterator[Metric]:
        """Return the counts."""
        labels = ["method", "route", "status"]
        requests = CounterMetricFamily("preshuffle_http_requests", "Requests by route and status", labels=labels)
        for (method, route, status), count in list(self._answers.items()):
            requests.add_metric([method, route, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily("preshuffle_http_seconds", "Time to answer, by route", labels=["route"])
        for route, times in list(self._times.items()):
            bounds = [*map(floatToGoString, _FAST), "+Inf"]
            seconds.add_metric([route], list(zip(bounds, accumulate(times.counts), strict=True)), times.seconds)
        yield seconds


class _FleetCollector(Collector):
    def __init__(self, fleet: FleetCounts) -> None:
        self._fleet = fleet

    def describe(self) -> Iterable[Metric]:
        """Describe nothing in advance: registering must not read the store."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return the counts."""
        yield _gauges("preshuffle_deployments", "Deployments by state", "verdict", self._fleet.deployments())
        text = "Deployments that an operator has silenced: in no state's number"
        yield GaugeMetricFamily("preshuffle_deployments_silenced", text, value=self._fleet.silenced())
        yield _gauges("preshuffle_findings", "Replicas that have a finding", "code", self._fleet.findings())
        for what, (good, bad, loads) in self._fleet.reloads().items():
            files = _FILES[what]
            yield CounterMetricFamily(f"preshuffle_{what}_reloads", f"How often {files} were loaded anew", value=good)
            yield CounterMetricFamily(
                f"preshuffle_{what}_reload_failures", f"How often {files} did not load", value=bad
            )
            yield GaugeMetricFamily(f"preshuffle_{what}_loads", f"1: {files} as they are now load", value=loads)
        info = GaugeMetricFamily("preshuffle_registry_info", "The book that is answered from", labels=["digest"])
        info.add_metric([self._fleet.digest()], 1)
        yield info


def _gauges(name: str, text: str, label: str, values: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in sorted(values.items()):
        family.add_metric([value], count)
    return family
