"""Bodies of webhooks: generic JSON, Slack, Alertmanager."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from preshuffle.api.notify.change_log import fields_of, sentence
from preshuffle.api.notify.label_names import label_names
from preshuffle.api.notify.links import Links
from preshuffle.api.notify.severity import Severity, severity_of
from preshuffle.api.store import StateChange

Payload = Callable[[Sequence[StateChange], Links], Any]
"""Makes a JSON body of state changes, the oldest first."""

ALERT_HOURS: Final = 24
"""Hours after which an alert ends by itself: a replica that is broken and then silent must not page for ever."""
_SLACK_LINES: Final = 20
_MARKS: Final[dict[Severity, str]] = {
    "critical": ":red_circle:",
    "warning": ":large_orange_circle:",
    "info": ":large_blue_circle:",
    "none": ":large_green_circle:",
}


def generic(changes: Sequence[StateChange], links: Links) -> dict[str, Any]:
    """Return ``{"changes": [...]}``: the fields of the log line, with severity and links."""
    return {"version": 1, "changes": [_change(change, links) for change in changes]}


def slack(changes: Sequence[StateChange], links: Links) -> dict[str, Any]:
    """Return a message of Slack's incoming webhooks, a line per change."""
    lines = [_slack_line(change, links) for change in changes[:_SLACK_LINES]]
    if len(changes) > _SLACK_LINES:
        lines.append(f"and {len(changes) - _SLACK_LINES} more")
    return {"text": "\n".join(lines)}


def alertmanager(changes: Sequence[StateChange], links: Links) -> list[dict[str, Any]]:
    """Return alerts as ``POST /api/v2/alerts`` takes them.

    An alert's labels stay the same while its replica's state gets worse or better; it ends when that is ok again or the
    replica is forgotten, and after ``ALERT_HOURS`` in any case.
    """
    return [_alert(change, links) for change in changes]


FORMATS: Final[Mapping[str, Payload]] = {"generic": generic, "slack": slack, "alertmanager": alertmanager}


def _change(change: StateChange, links: Links) -> dict[str, Any]:
    return {
        "text": sentence(change),
        "severity": severity_of(change.state_after),
        **fields_of(change),
        "page": links.page(change.name),
        "runbook": _runbook(change, links),
    }


def _slack_line(change: StateChange, links: Links) -> str:
    runbook = _runbook(change, links)
    is_link = runbook is not None and runbook.startswith("http")
    advice = f" (<{runbook}|{_topic(change)}>)" if is_link else f" ({', '.join(change.codes)})" if change.codes else ""
    page = links.page(change.name)
    more = f" <{page}|page>" if page.startswith("http") else ""
    return f"{_MARKS[severity_of(change.state_after)]} {_escaped(sentence(change))}{advice}{more}"


def _escaped(text: str) -> str:
    """Escape what Slack would read as a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _alert(change: StateChange, links: Links) -> dict[str, Any]:
    severity = severity_of(change.state_after)
    names = label_names(change.labels)
    labels = {names[key]: value for key, value in change.labels.items()}
    labels |= {"alertname": "PreshuffleDeployment", "deployment": change.name, "replica": str(change.replica)}
    annotations = {
        "summary": sentence(change),
        "state": change.state_after or "forgotten",
        "severity": severity,
        "codes": ", ".join(change.codes),
        "cause": change.cause or "",
        "node": change.node or "",
        "owner": change.owner or "",
        "page": links.page(change.name),
        "runbook_url": _runbook(change, links) or "",
    }
    end = change.at if severity == "none" else change.at + timedelta(hours=ALERT_HOURS)
    alert: dict[str, Any] = {
        "labels": labels,
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": _moment(change.at),
        "endsAt": _moment(end),
    }
    page = links.page(change.name)
    return alert | ({"generatorURL": page} if page.startswith("http") else {})


def _topic(change: StateChange) -> str | None:
    """Return what the runbook is about: the gravest code, else the state."""
    state = change.state_after
    if state in ("stale", "drifted"):
        return state
    return change.codes[0] if change.codes else None if severity_of(state) == "none" else state


def _runbook(change: StateChange, links: Links) -> str | None:
    topic = _topic(change)
    return None if topic is None else links.runbook(topic)


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")
