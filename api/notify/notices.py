"""Everything that tells state changes outside, made of the settings."""

from __future__ import annotations

from dataclasses import dataclass

from preshuffle.api.notify.bad_deployments import BadDeployments
from preshuffle.api.notify.change_log import log_changes
from preshuffle.api.notify.collector import NotifyCollector
from preshuffle.api.notify.links import Links
from preshuffle.api.notify.webhook import Webhook, webhook_of
from preshuffle.api.settings import Settings
from preshuffle.api.store import Store
from preshuffle.api.upkeep import ChangeFeed


@dataclass(frozen=True, slots=True)
class Notices:
    """Listeners of state changes, and the metrics that name deployments.

    Attributes:
        collector: of the metrics.
        webhook: None where the settings name none.
    """

    collector: NotifyCollector
    webhook: Webhook | None

    @classmethod
    def subscribe(cls, settings: Settings, store: Store, feed: ChangeFeed) -> Notices:
        """Subscribe what the settings name to the feed of state changes.

        Raises:
            ServeError: the webhook's file of headers cannot be read or is not valid.
        """
        links = Links(settings.links_base)
        webhook = webhook_of(settings, links, store)
        feed.subscribe(log_changes)
        if webhook is not None:
            feed.subscribe(webhook.take)
        return cls(NotifyCollector(BadDeployments(store), settings.metric_deployments, links, webhook), webhook)

    def start(self) -> None:
        """Start the webhook's thread."""
        if self.webhook is not None:
            self.webhook.start()

    def stop(self) -> None:
        """End it, after what waits."""
        if self.webhook is not None:
            self.webhook.stop()
