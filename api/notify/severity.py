"""How much each state matters to somebody on call."""

from __future__ import annotations

import logging
from typing import Final, Literal

from preshuffle.api.fleet import State

Severity = Literal["critical", "warning", "info", "none"]

SEVERITIES: Final[dict[State, Severity]] = {
    "mismatch": "critical",
    "unsupported": "critical",
    "stale": "warning",
    "degraded": "info",
    "drifted": "info",
    "unknown": "none",
    "ok": "none",
}
BAD: Final = tuple(state for state, severity in SEVERITIES.items() if severity in ("critical", "warning", "info"))
"""States that metrics name and webhooks tell."""
LEVELS: Final[dict[Severity, int]] = {
    "critical": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "none": logging.INFO,
}


def severity_of(state: State | None) -> Severity:
    """Return the severity of a state; None (not there) has none."""
    return "none" if state is None else SEVERITIES[state]
