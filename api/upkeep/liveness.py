"""Liveness: record replicas that became stale or came back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, select, true, update

from preshuffle.api.fleet import silence_cause
from preshuffle.api.store import (
    SERVICE,
    Action,
    AnyRow,
    Circumstances,
    HistoryEntry,
    ReplicaStatus,
    Store,
    beats,
    bound_key,
    is_silent,
    moment,
    now_ms,
    parted,
    record,
    replica_facts,
    replicas,
    shown_state,
    write_facts,
)

_BATCH = 1000


def update_liveness(store: Store) -> int:
    """Record replicas that became stale or came back; return their number.

    Raises:
        StoreError: the store does not answer; nothing was changed.
    """
    now = now_ms()
    with store.transaction() as connection:
        if connection.execute(_changed(now).limit(1)).first() is None:
            return 0
    with store.changing("changes") as connection:
        # rows that a heartbeat has locked are left to the next run
        rows = connection.execute(_changed(now).limit(_BATCH).with_for_update(of=beats, skip_locked=True)).all()
        _write(connection, rows, now)
        record(connection, now, [_entry(row) for row in rows])
    return len(rows)


def _changed(now: int) -> Select[Any]:
    same_replica = and_(beats.c.name == replicas.c.name, beats.c.replica == replicas.c.replica)
    same_facts = and_(beats.c.name == replica_facts.c.name, beats.c.replica == replica_facts.c.replica)
    columns = (
        beats.c.name,
        beats.c.replica,
        beats.c.silent,
        beats.c.seen_ms,
        replicas.c.verdict,
        replicas.c.state,
        *(replica_facts.c[name] for name in ("node", "codes", "cause", "digest", "stage", "stages")),
    )
    became_stale = and_(beats.c.silent.is_not(true()), is_silent(now))
    came_back = and_(beats.c.silent.is_(true()), (beats.c.ttl_ms.is_(None)) | (beats.c.seen_ms + beats.c.ttl_ms >= now))
    joined = select(*columns).join(replicas, same_replica).join(replica_facts, same_facts)
    return joined.where(became_stale | came_back)


def _write(connection: Connection, rows: Sequence[AnyRow], now: int) -> None:
    for silent in (False, True):
        changed = [{"of": row.name, "number": row.replica} for row in rows if row.silent is silent]
        if changed:
            connection.execute(update(beats).where(bound_key(beats)).values(silent=not silent), changed)
    began = [
        {"of": row.name, "number": row.replica, "since_ms": now}
        for row in rows
        if shown_state(row.state, True) != row.state
    ]
    if began:
        write_facts(connection, began, new=False)


def _entry(row: AnyRow) -> HistoryEntry:
    alive, silent = ReplicaStatus(row.verdict, row.state), ReplicaStatus(row.verdict, shown_state(row.state, True))
    before, after = (silent, alive) if row.silent else (alive, silent)
    cause = row.cause if row.silent else silence_cause(moment(row.seen_ms))
    circumstances = Circumstances(row.node, parted(row.codes), cause, row.digest, row.stage, row.stages)
    action: Action = "back" if row.silent else "silent"
    return HistoryEntry(SERVICE, action, row.name, row.replica, None, before, after, circumstances=circumstances)
