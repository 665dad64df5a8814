"""Metrics that name deployments in a bad state, and count webhooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from preshuffle.api.notify.bad_deployments import BadDeployment, BadDeployments
from preshuffle.api.notify.label_names import label_names
from preshuffle.api.notify.links import Links
from preshuffle.api.notify.severity import SEVERITIES
from preshuffle.api.notify.webhook import Webhook, WebhookCounts

MAX_LABELS: Final = 16
"""Labels of deployments that become labels of the metric."""
_FIXED: Final = ("deployment", "state", "code", "replica", "node", "silent", "muted", "owner", "page", "runbook")
_CRITICAL: Final = tuple(state for state, severity in SEVERITIES.items() if severity == "critical")


class NotifyCollector(Collector):
    """Collects when Prometheus scrapes.

    Args:
        bad: finds the deployments.
        most: names at most so many; 0 names none.
        links: into the service.
        webhook: None where there is none.
    """

    def __init__(self, bad: BadDeployments, most: int, links: Links, webhook: Webhook | None) -> None:
        """Keep them."""
        self._bad = bad
        self._most = most
        self._links = links
        self._webhook = webhook

    def describe(self) -> Iterable[Metric]:
        """Describe nothing in advance: registering must not read the store."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return the metrics."""
        found = self._bad.find()
        paging = Counter(bad.state for bad in found if bad.calls)
        text = "Deployments that serve, by state, without those that an operator has silenced or acknowledged"
        counted = GaugeMetricFamily("preshuffle_paging_deployments", text, labels=["verdict"])
        for state in _CRITICAL:
            counted.add_metric([state], paging[state])
        yield counted
        named = found[: self._most]
        yield from self._named(named)
        text = "Deployments in a bad state that no metric names"
        yield GaugeMetricFamily("preshuffle_unnamed_deployments", text, len(found) - len(named))
        yield from self._webhooks()

    def _named(self, named: Sequence[BadDeployment]) -> Iterator[Metric]:
        keys = sorted({key for bad in named for key in bad.labels})[:MAX_LABELS]
        names = label_names(keys)
        info = GaugeMetricFamily(
            "preshuffle_deployment_info", "A deployment in a bad state", labels=[*_FIXED, *names.values()]
        )
        text = "When the bad replicas of a deployment were last heard of"
        seen = GaugeMetricFamily("preshuffle_deployment_seen_timestamp_seconds", text, labels=["deployment"])
        for bad in named:
            topic = bad.state if bad.state in ("stale", "drifted") or not bad.code else bad.code
            fixed = (bad.name, bad.state, bad.code, str(bad.replica), bad.node, _word(bad.silent), _word(bad.muted))
            links = (bad.owner, self._links.page(bad.name), self._links.runbook(topic))
            info.add_metric([*fixed, *links, *(bad.labels.get(key, "") for key in names)], 1)
            seen.add_metric([bad.name], bad.seen_s)
        yield info
        yield seen

    def _webhooks(self) -> Iterator[Metric]:
        counts = self._webhook.counts if self._webhook is not None else WebhookCounts()
        waiting = self._webhook.waiting if self._webhook is not None else 0
        for name, text, value in (
            ("sent", "State changes that the webhook's receiver has taken", counts.sent),
            ("dropped", "State changes that the webhook's receiver has not got and will not get", counts.dropped),
            ("failures", "Requests to the webhook's receiver that failed", counts.failures),
        ):
            yield CounterMetricFamily(f"preshuffle_webhook_{name}", text, value=value)
        yield GaugeMetricFamily("preshuffle_webhook_waiting", "State changes that wait for the webhook", waiting)


def _word(value: bool) -> str:
    return "true" if value else "false"
