"""Marks of deployments: labels, owner, link, silence and acknowledgement, with their history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from preshuffle.api.fleet import Acknowledgement, Description, Marks, Silence, State
from preshuffle.api.store.history import Action, FieldChange, HistoryEntry, record
from preshuffle.api.store.rows import AnyRow, moment
from preshuffle.api.store.schema import deployment_labels, deployments
from preshuffle.registry.base.frozen import FrozenDict


@dataclass(frozen=True, slots=True)
class MarkChange:
    """Change of a deployment's marks.

    Attributes:
        action: its name in the history.
        columns: of ``deployments``, with their new values.
        labels: all labels; None leaves them.
        shown: what the history shows as the new value, by field.
    """

    action: Action
    columns: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] | None = None
    shown: Mapping[str, Any] = field(default_factory=dict)


def silence(who: str, now: int, until: datetime, note: str) -> MarkChange:
    """Return the change that silences a deployment."""
    until_ms = int(until.timestamp() * 1000)
    values = {"silenced_by": who[:256], "silenced_ms": now, "silenced_until_ms": until_ms, "silence_note": note}
    shown = {"until": moment(until_ms).isoformat(), **({"note": note} if note else {})}
    return MarkChange("silence", values, shown=shown)


def unsilence() -> MarkChange:
    """Return the change that ends a silence."""
    return MarkChange("unsilence", dict.fromkeys(("silenced_by", "silenced_ms", "silenced_until_ms", "silence_note")))


def acknowledge(who: str, now: int, state: State, note: str) -> MarkChange:
    """Return the change that acknowledges a deployment's state."""
    values = {"acknowledged_by": who[:256], "acknowledged_ms": now, "acknowledged_state": state}
    shown = {"state": state, **({"note": note} if note else {})}
    return MarkChange("acknowledge", {**values, "acknowledge_note": note}, shown=shown)


def unacknowledge() -> MarkChange:
    """Return the change that withdraws an acknowledgement."""
    names = ("acknowledged_by", "acknowledged_ms", "acknowledged_state", "acknowledge_note")
    return MarkChange("unacknowledge", dict.fromkeys(names))


def describe(description: Description) -> MarkChange:
    """Return the change of what a description gives."""
    given = description.model_fields_set
    columns: dict[str, Any] = {name: getattr(description, name) for name in ("owner", "link") if name in given}
    return MarkChange("describe", columns, description.labels if "labels" in given else None)


def write_marks(connection: Connection, row: AnyRow, change: MarkChange, who: str, now: int, revision: int) -> None:
    """Write a change of marks and its entry in the history."""
    of_name = deployments.c.name == row.name
    connection.execute(update(deployments).where(of_name).values(revision=revision, **change.columns))
    changes = [FieldChange(field=name, after=value) for name, value in change.shown.items()]
    if change.action == "describe":
        changes = [*_label_changes(connection, row.name, change.labels), *_column_changes(row, change.columns)]
    if change.labels is not None:
        write_labels(connection, row.name, change.labels)
    record(connection, now, [HistoryEntry(who, change.action, row.name, None, revision, changes=changes)])


def write_labels(connection: Connection, name: str, labels: Mapping[str, str]) -> None:
    """Replace all labels of a deployment."""
    connection.execute(delete(deployment_labels).where(deployment_labels.c.name == name))
    if labels:
        rows = [{"name": name, "label": label, "value": value} for label, value in labels.items()]
        connection.execute(insert(deployment_labels), rows)


def labels_of(connection: Connection, name: str) -> dict[str, str]:
    """Return a deployment's labels."""
    query = select(deployment_labels).where(deployment_labels.c.name == name).order_by(deployment_labels.c.label)
    return {row.label: row.value for row in connection.execute(query)}


def marks_of(row: AnyRow, labels: Mapping[str, str], state: State, since: datetime, now: int) -> Marks:
    """Return the marks in a deployment's row that count now.

    Args:
        row: of ``deployments``.
        labels: of it.
        state: that it is in.
        since: since when.
        now: milliseconds since the epoch.
    """
    silenced = row.silenced_until_ms is not None and row.silenced_until_ms > now
    known = row.acknowledged_ms is not None and row.acknowledged_state == state
    acknowledged = known and moment(row.acknowledged_ms) >= since
    return Marks(
        labels=FrozenDict(labels),
        owner=row.owner,
        link=row.link,
        silence=Silence(
            by=row.silenced_by,
            at=moment(row.silenced_ms),
            until=moment(row.silenced_until_ms),
            note=row.silence_note or "",
        )
        if silenced
        else None,
        acknowledgement=Acknowledgement(
            by=row.acknowledged_by, at=moment(row.acknowledged_ms), note=row.acknowledge_note or ""
        )
        if acknowledged
        else None,
    )


def last_marks(connection: Connection, row: AnyRow) -> list[FieldChange]:
    """Return labels, owner and link as removed, for a forgotten deployment."""
    return [
        *_label_changes(connection, row.name, {}),
        *_column_changes(row, {name: None for name in ("owner", "link")}),
    ]


def _label_changes(connection: Connection, name: str, labels: Mapping[str, str] | None) -> list[FieldChange]:
    if labels is None:
        return []
    before = labels_of(connection, name)
    keys = [key for key in dict.fromkeys([*before, *labels]) if before.get(key) != labels.get(key)]
    return [FieldChange(field=f"labels.{key}", before=before.get(key), after=labels.get(key)) for key in keys]


def _column_changes(row: AnyRow, columns: Mapping[str, Any]) -> list[FieldChange]:
    values = row._mapping
    return [
        FieldChange(field=name, before=values[name], after=after)
        for name, after in columns.items()
        if values[name] != after
    ]
