"""Names reach the outside: log lines, webhooks and metrics of state changes."""

from preshuffle.api.notify.links import RUNBOOKS
from preshuffle.api.notify.notices import Notices
from preshuffle.api.notify.webhook import read_headers

__all__ = [
    "RUNBOOKS",
    "Notices",
    "read_headers",
]
