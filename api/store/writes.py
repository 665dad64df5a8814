"""Rows of the store's tables, written inside a transaction that somebody else began."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, insert, select, update

from preshuffle.api.fleet import Judgement, ReplicaReport
from preshuffle.api.store.rows import AnyRow
from preshuffle.api.store.schema import beats, deployments, meta, replicas


def increment(connection: Connection, key: str) -> int:
    """Raise a counter and return it; whoever else raises it waits for the end of this transaction."""
    mine = meta.c.key == key
    connection.execute(update(meta).where(mine).values(value=meta.c.value + 1))
    number: int = connection.execute(select(meta.c.value).where(mine)).scalar_one()
    return number


def replica_row(connection: Connection, name: str, replica: int) -> AnyRow | None:
    """Return a replica's own row."""
    mine = (replicas.c.name == name) & (replicas.c.replica == replica)
    return connection.execute(select(replicas).where(mine)).one_or_none()


def write_deployment(connection: Connection, name: str, revision: int, now: int, *, new: bool) -> None:
    """Write that a deployment changed."""
    if new:
        values = {"name": name, "revision": revision, "created_ms": now, "replaced_ms": now}
        connection.execute(insert(deployments).values(**values))
        return
    mine = deployments.c.name == name
    connection.execute(update(deployments).where(mine).values(revision=revision, replaced_ms=now))


def write_replica(
    connection: Connection, name: str, replica: int, text: str, judgement: Judgement, now: int, *, new: bool
) -> None:
    """Write what a replica told, and what was found in it."""
    values = {"report": text, "replaced_ms": now, **judged_values(judgement)}
    if new:
        connection.execute(insert(replicas).values(name=name, replica=replica, created_ms=now, **values))
        return
    mine = (replicas.c.name == name) & (replicas.c.replica == replica)
    connection.execute(update(replicas).where(mine).values(**values))


def write_beat(connection: Connection, name: str, replica: int, report: ReplicaReport, now: int, *, new: bool) -> None:
    """Write that a replica was heard of, and for how long it may be silent."""
    values = {"seen_ms": now, "ttl_ms": report.ttl_s and report.ttl_s * 1000}
    if new:
        connection.execute(insert(beats).values(name=name, replica=replica, silent=False, **values))
        return
    connection.execute(heard(name, replica).values(**values))


def heard(name: str, replica: int) -> Any:
    """Return the statement that changes when a replica was heard of."""
    return update(beats).where(beats.c.name == name, beats.c.replica == replica)


def judged_values(judgement: Judgement) -> dict[str, Any]:
    """Return the columns of a judgement."""
    return {
        "verdict": judgement.verdict,
        "state": judgement.state,
        "judged_by": judgement.by,
        "judgement": judgement.text,
        "baseline": json.dumps(judgement.baseline),
    }
