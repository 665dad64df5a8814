"""One structured log line per committed state change."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from preshuffle.api.log_lines import FIELDS
from preshuffle.api.notify.severity import LEVELS, severity_of
from preshuffle.api.store import StateChange

log = logging.getLogger("preshuffle.api.states")


def log_changes(changes: Sequence[StateChange]) -> None:
    """Log state changes, broken ones as errors, silent ones as warnings."""
    for change in changes:
        log.log(LEVELS[severity_of(change.state_after)], "%s", sentence(change), extra={FIELDS: fields_of(change)})


def sentence(change: StateChange) -> str:
    """Return a state change in words.

    They name the deployment, replica and node, the states, and the cause.
    """
    before, after = change.state_before or "new", change.state_after or "forgotten"
    where = f" on {change.node}" if change.node else ""
    codes = f" ({', '.join(change.codes)})" if change.codes and change.state_after not in (None, "stale") else ""
    cause = f": {change.cause}" if change.cause else ""
    return f"{change.name} replica {change.title}{where} went from {before} to {after}{codes}{cause}"


def fields_of(change: StateChange) -> dict[str, Any]:
    """Return the fields of a change's line.

    ``from`` and ``to`` are null where the replica is new or forgotten.
    """
    return {
        "event": "state-change",
        "name": change.name,
        "replica": change.replica,
        "stage": change.pipeline and f"{change.pipeline.stage}/{change.pipeline.stages}",
        "node": change.node,
        "from": change.state_before,
        "to": change.state_after,
        "codes": list(change.codes),
        "cause": change.cause,
        "digest": change.digest,
        "registry": change.registry,
        "by": change.who,
        "action": change.action,
        "at": change.at.isoformat(timespec="milliseconds"),
        "id": change.id,
        "labels": dict(change.labels),
        "owner": change.owner,
        "link": change.link,
    }
