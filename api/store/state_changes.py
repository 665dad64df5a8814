"""Committed state changes of replicas, in order, each claimed once."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from pydantic import Field
from sqlalchemy import Connection, select, update

from preshuffle.api.fleet import PipelineStage, State, replica_title
from preshuffle.api.store.history import Action, Event, event_of
from preshuffle.api.store.rows import AnyRow
from preshuffle.api.store.schema import EMITTED, deployment_labels, deployments, history, meta
from preshuffle.api.store.store import Store
from preshuffle.registry.base.frozen import Frozen, FrozenDict

_BATCH: Final = 500


class StateChange(Frozen):
    """State change of a replica.

    A state is null before the first report, and after the replica was forgotten.

    Attributes:
        id: of the entry in the history; rises with time.
        name: the deployment.
        pipeline: the stage that the replica's number stands for; null without stages.
        node: the replica's machine.
        codes: of its findings then, errors first.
        cause: why the state is what it is now; null where nothing is wrong.
        digest: of the decision for its worst group.
        registry: digests of book and kernel tables that judged; null where nothing was judged.
        labels: of the deployment, as its owner and link.
    """

    id: int
    at: datetime
    who: str
    action: Action
    name: str
    replica: int
    pipeline: PipelineStage | None = None
    node: str | None
    state_before: State | None
    state_after: State | None
    codes: tuple[str, ...]
    cause: str | None
    digest: str | None
    registry: str | None
    labels: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    owner: str | None = None
    link: str | None = None

    @property
    def title(self) -> str:
        """What people call the replica or its stage."""
        return replica_title(self.replica, self.pipeline)


def claim_state_changes(store: Store) -> tuple[StateChange, ...]:
    """Return state changes that nobody has claimed yet, the oldest first.

    At most 500. Each is returned once, to one caller of all processes on the store, also if it was made while none
    ran. Writers increment the counter ``changes`` first, so ids rise in the order of commits and none is left out.

    Raises:
        StoreError: the store does not answer; nothing was claimed.
    """
    with store.transaction() as connection:
        if not _unclaimed(connection, _last_claimed(connection)):
            return ()
    with store.transaction(write=True) as connection:
        is_cursor = meta.c.key == EMITTED
        connection.execute(update(meta).where(is_cursor).values(value=meta.c.value))  # others wait
        rows = _unclaimed(connection, _last_claimed(connection))
        if rows:
            connection.execute(update(meta).where(is_cursor).values(value=rows[-1].id))
        marks = _marks(connection, {row.subject for row in rows})
        return tuple(_change(row, marks.get(row.subject)) for row in rows)


def _last_claimed(connection: Connection) -> int:
    last: int = connection.execute(select(meta.c.value).where(meta.c.key == EMITTED)).scalar_one()
    return last


def _unclaimed(connection: Connection, last: int) -> list[AnyRow]:
    changed = history.c.state_before.is_distinct_from(history.c.state_after)
    query = select(history).where(history.c.id > last, changed, history.c.replica.is_not(None))
    return list(connection.execute(query.order_by(history.c.id).limit(_BATCH)).all())


def _marks(connection: Connection, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return labels, owner and link of the deployments that are still stored."""
    marks: dict[str, dict[str, Any]] = {}
    columns = (deployments.c.name, deployments.c.owner, deployments.c.link)
    for row in connection.execute(select(*columns).where(deployments.c.name.in_(names))):
        marks[row.name] = {"labels": {}, "owner": row.owner, "link": row.link}
    for row in connection.execute(select(deployment_labels).where(deployment_labels.c.name.in_(names))):
        marks[row.name]["labels"][row.label] = row.value
    return marks


def _last_marks(event: Event) -> dict[str, Any]:
    """Return labels, owner and link from the entry of a forgotten deployment."""
    before = {change.field: change.before for change in event.changes if event.action == "forget"}
    labels = {field.removeprefix("labels."): value for field, value in before.items() if field.startswith("labels.")}
    return {"labels": labels, "owner": before.get("owner"), "link": before.get("link")}


def _change(row: AnyRow, marks: dict[str, Any] | None) -> StateChange:
    event = event_of(row)
    return StateChange(
        id=event.id,
        at=event.at,
        who=event.who,
        action=event.action,
        name=event.subject,
        replica=row.replica,
        pipeline=event.pipeline,
        node=event.node,
        state_before=event.state_before,
        state_after=event.state_after,
        codes=event.codes,
        cause=event.cause,
        digest=event.digest,
        registry=event.registry,
        **(marks or _last_marks(event)),
    )
