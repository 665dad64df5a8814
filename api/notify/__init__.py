"""Names reach the outside: log lines, webhooks and metrics of state changes."""

from preshuffle.api.notify.bad_deployments import BadDeployments
from preshuffle.api.notify.change_log import log_changes
from preshuffle.api.notify.collector import NotifyCollector
from preshuffle.api.notify.links import RUNBOOKS, Links
from preshuffle.api.notify.webhook import Webhook, read_headers, webhook_of

__all__ = [
    "RUNBOOKS",
    "BadDeployments",
    "Links",
    "NotifyCollector",
    "Webhook",
    "log_changes",
    "read_headers",
    "webhook_of",
]
