"""History (audit log): who changed what, when, with verdicts before and after.

A row is written in the transaction of its change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import Field
from sqlalchemy import Connection, delete, insert, select

from preshuffle.api.fleet import PipelineStage, State, replica_title
from preshuffle.api.store.rows import AnyRow, stage_in
from preshuffle.api.store.schema import history
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.values.report import Verdict

Action = Literal[
    "report",
    "forget",
    "recheck",
    "silent",
    "back",
    "describe",
    "silence",
    "unsilence",
    "acknowledge",
    "unacknowledge",
    "tables",
    "book",
    "conformance",
]
MAX_PER_SUBJECT: Final = 1000
"""Rows that a subject may have; older ones are deleted."""
_MAX_FIELDS: Final = 64
_MAX_CHARS: Final = 400
SERVICE: Final = "service"
"""Author of changes without a request: a time limit, or a re-check after a change of the registry."""


class FieldChange(Frozen):
    """One field that differs; null where it was or is absent."""

    field: str
    before: Any = None
    after: Any = None


class Event(Frozen):
    """One change in the history."""

    id: int = Field(description="rises with time")
    at: datetime
    who: str = Field(description="the caller; service: a change without a request")
    action: Action
    subject: str = Field(description="the deployment, the AITER version or build, or a book's digest")
    replica: int | None = None
    pipeline: PipelineStage | None = Field(
        default=None, description="the stage that the replica's number stands for, if one is recorded"
    )
    revision: int | None = Field(default=None, description="of the deployment, after the change")
    verdict_before: Verdict | None = None
    verdict_after: Verdict | None = None
    state_before: State | None = None
    state_after: State | None = None
    registry: str | None = Field(default=None, description="digests of book and kernel tables that judged")
    node: str | None = Field(default=None, description="the replica's machine")
    codes: tuple[str, ...] = Field(default=(), description="of the replica's findings then, errors first")
    cause: str | None = Field(default=None, description="why the state is what it is after the change")
    digest: str | None = Field(default=None, description="of the decision for the replica's worst group then")
    changes: tuple[FieldChange, ...] = Field(default=(), description=f"the first {_MAX_FIELDS}")

    @property
    def title(self) -> str:
        """What people call the replica or its stage, if any."""
        return "" if self.replica is None else replica_title(self.replica, self.pipeline)


class Events(Frozen):
    """Page of the history, the newest change first."""

    events: tuple[Event, ...]
    next: int | None = Field(description="the cursor of the next page; null on the last one")


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """Verdict and shown state of a replica."""

    verdict: str
    state: str


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Circumstances of a change: machine, finding codes, cause, decision digest, stage."""

    node: str | None = None
    codes: tuple[str, ...] = ()
    cause: str | None = None
    digest: str | None = None
    stage: int | None = None
    stages: int | None = None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Change that is about to be recorded."""

    who: str
    action: Action
    subject: str
    replica: int | None = None
    revision: int | None = None
    before: ReplicaStatus | None = None
    after: ReplicaStatus | None = None
    registry: str | None = None
    changes: Sequence[FieldChange] = ()
    circumstances: Circumstances = Circumstances()


def record(connection: Connection, now_ms: int, entries: Sequence[HistoryEntry]) -> None:
    """Append changes in their transaction; delete rows above a subject's limit."""
    if not entries:
        return
    rows = [
        {
            "at_ms": now_ms,
            "who": entry.who[:256],
            "action": entry.action,
            "subject": entry.subject,
            "replica": entry.replica,
            "revision": entry.revision,
            "verdict_before": entry.before and entry.before.verdict,
            "verdict_after": entry.after and entry.after.verdict,
            "state_before": entry.before and entry.before.state,
            "state_after": entry.after and entry.after.state,
            "registry": entry.registry,
            "detail": json.dumps([change.model_dump(mode="json") for change in entry.changes]),
            "node": entry.circumstances.node,
            "codes": " ".join(entry.circumstances.codes),
            "cause": entry.circumstances.cause,
            "digest": entry.circumstances.digest,
            "stage": entry.circumstances.stage,
            "stages": entry.circumstances.stages,
        }
        for entry in entries
    ]
    connection.execute(insert(history), rows)
    for subject, book in {(entry.subject, entry.action == "book") for entry in entries}:
        # a deployment may have the registry's name: its changes must not push out which book was announced
        is_book = history.c.action == "book"
        of_subject = (history.c.subject == subject) & (is_book if book else ~is_book)
        newest_first = select(history.c.id).where(of_subject).order_by(history.c.id.desc())
        oldest = newest_first.offset(MAX_PER_SUBJECT - 1).limit(1)
        connection.execute(delete(history).where(of_subject, history.c.id < oldest.scalar_subquery()))


def read(
    connection: Connection,
    limit: int,
    *,
    subject: str | None = None,
    before: int | None = None,
    since: datetime | None = None,
) -> Events:
    """Return a page of changes, the newest first.

    Args:
        connection: a transaction.
        limit: largest number of changes.
        subject: only of this deployment, AITER version or book.
        before: only ids below this one.
        since: only changes from this time on.
    """
    query = select(history).order_by(history.c.id.desc()).limit(limit + 1)
    if subject is not None:
        query = query.where(history.c.subject == subject)
    if before is not None:
        query = query.where(history.c.id < before)
    if since is not None:
        query = query.where(history.c.at_ms >= int(since.timestamp() * 1000))
    rows = connection.execute(query).all()
    events = [event_of(row) for row in rows[:limit]]
    return Events(events=tuple(events), next=events[-1].id if len(rows) > limit else None)


def event_of(row: AnyRow) -> Event:
    """Return a row of the history as an event."""
    return Event(
        id=row.id,
        at=datetime.fromtimestamp(row.at_ms / 1000, UTC),
        who=row.who,
        action=row.action,
        subject=row.subject,
        replica=row.replica,
        pipeline=stage_in(row),
        revision=row.revision,
        verdict_before=row.verdict_before,
        verdict_after=row.verdict_after,
        state_before=row.state_before,
        state_after=row.state_after,
        registry=row.registry,
        node=row.node,
        codes=tuple((row.codes or "").split()),
        cause=row.cause,
        digest=row.digest,
        changes=tuple(FieldChange.model_validate(change) for change in json.loads(row.detail)),
    )


def differences(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[FieldChange]:
    """Return the fields that differ between two JSON objects.

    There are none if ``before`` is None; the first 64 are returned.

    Example:
        >>> [change.field for change in differences({"node": "a", "groups": [1]}, {"node": "b", "groups": [1]})]
        ['node']
    """
    if before is None:
        return []
    old, new = dict(_leaves(before)), dict(_leaves(after))
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return [
        FieldChange(field=name[:_MAX_CHARS], before=_short(old.get(name)), after=_short(new.get(name)))
        for name in names[:_MAX_FIELDS]
    ]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from _leaves(item, f"{path}.{name}" if path else str(name))
    if not isinstance(value, Mapping | list) or not value:
        yield path, value


def _short(value: Any) -> Any:
    return f"{value[:_MAX_CHARS]}…" if isinstance(value, str) and len(value) > _MAX_CHARS else value
