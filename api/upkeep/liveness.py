"""Replicas that fell silent, and those that are heard of again: the clock's changes, written into the history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, select, true, update

from preshuffle.api.fleet import worst_state
from preshuffle.api.store import (
    SERVICE,
    AnyRow,
    HistoryEntry,
    ReplicaStatus,
    Store,
    beats,
    bound_key,
    is_silent,
    now_ms,
    record,
    replicas,
)

_MOST = 1000


def update_liveness(store: Store) -> int:
    """Write down who fell silent and who came back; return how many.

    Raises:
        StoreError: the store does not answer; nothing was changed.
    """
    now = now_ms()
    with store.transaction() as connection:
        if connection.execute(_changed(now).limit(1)).first() is None:
            return 0
    with store.changing("changes") as connection:
        # a heartbeat that is being written is left to the next run
        rows = connection.execute(_changed(now).limit(_MOST).with_for_update(of=beats, skip_locked=True)).all()
        _write(connection, rows)
        record(connection, now, [_entry(row) for row in rows])
    return len(rows)


def _changed(now: int) -> Select[Any]:
    same = and_(beats.c.name == replicas.c.name, beats.c.replica == replicas.c.replica)
    columns = (beats.c.name, beats.c.replica, beats.c.silent, replicas.c.verdict, replicas.c.state)
    fell = and_(beats.c.silent.is_not(true()), is_silent(now))
    back = and_(beats.c.silent.is_(true()), (beats.c.ttl_ms.is_(None)) | (beats.c.seen_ms + beats.c.ttl_ms >= now))
    return select(*columns).join(replicas, same).where(fell | back)


def _write(connection: Connection, rows: Sequence[AnyRow]) -> None:
    for silent in (False, True):
        turned = [{"of": row.name, "number": row.replica} for row in rows if row.silent is silent]
        if turned:
            connection.execute(update(beats).where(bound_key(beats)).values(silent=not silent), turned)


def _entry(row: AnyRow) -> HistoryEntry:
    heard, silent = ReplicaStatus(row.verdict, row.state), ReplicaStatus(row.verdict, worst_state([row.state, "stale"]))
    before, after = (silent, heard) if row.silent else (heard, silent)
    return HistoryEntry(SERVICE, "back" if row.silent else "silent", row.name, row.replica, None, before, after)
