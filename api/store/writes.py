"""Statements that write the store's rows, inside the caller's transaction."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, insert, select, update

from preshuffle.api.fleet import Judgement, Receipt, ReplicaReport, codes_of, fixes_of
from preshuffle.api.store.history import ReplicaStatus
from preshuffle.api.store.rows import AnyRow, moment
from preshuffle.api.store.schema import beats, deployments, meta, replicas


def increment(connection: Connection, key: str) -> int:
    """Increment a counter and return it; others wait until this transaction ends."""
    counter = meta.c.key == key
    connection.execute(update(meta).where(counter).values(value=meta.c.value + 1))
    number: int = connection.execute(select(meta.c.value).where(counter)).scalar_one()
    return number


def replica_row(connection: Connection, name: str, replica: int) -> AnyRow | None:
    """Return a replica's row, or None."""
    return connection.execute(select(replicas).where(_is_replica(name, replica))).one_or_none()


def write_deployment(connection: Connection, name: str, revision: int, now: int, *, new: bool) -> None:
    """Insert a deployment, or update its revision and time."""
    if new:
        values = {"name": name, "revision": revision, "created_ms": now, "replaced_ms": now}
        connection.execute(insert(deployments).values(**values))
        return
    connection.execute(update(deployments).where(deployments.c.name == name).values(revision=revision, replaced_ms=now))


def write_replica(
    connection: Connection, name: str, replica: int, text: str, judgement: Judgement, now: int, *, new: bool
) -> None:
    """Insert or update a replica's report and judgement."""
    values = {"report": text, "replaced_ms": now, **judged_values(judgement)}
    if new:
        connection.execute(insert(replicas).values(name=name, replica=replica, created_ms=now, **values))
        return
    connection.execute(update(replicas).where(_is_replica(name, replica)).values(**values))


def write_beat(connection: Connection, name: str, replica: int, report: ReplicaReport, now: int, *, new: bool) -> None:
    """Insert or update a replica's heartbeat and its ``ttl_s``."""
    values = {"seen_ms": now, "ttl_ms": report.ttl_s and report.ttl_s * 1000}
    if new:
        connection.execute(insert(beats).values(name=name, replica=replica, silent=False, **values))
        return
    connection.execute(heartbeat_update(name, replica).values(**values))


def heartbeat_update(name: str, replica: int) -> Any:
    """Return the UPDATE statement of a replica's heartbeat, without values."""
    return update(beats).where(beats.c.name == name, beats.c.replica == replica)


def _is_replica(name: str, replica: int) -> Any:
    return (replicas.c.name == name) & (replicas.c.replica == replica)


def judged_values(judgement: Judgement) -> dict[str, Any]:
    """Return a judgement as columns of ``replicas``."""
    return {
        "verdict": judgement.verdict,
        "state": judgement.state,
        "judged_by": judgement.by,
        "judgement": judgement.text,
        "baseline": json.dumps(judgement.baseline),
    }


def status_of(row: AnyRow | None) -> ReplicaStatus | None:
    """Return the verdict and state in a replica's row."""
    return ReplicaStatus(row.verdict, row.state) if row is not None else None


def receipt_of(
    name: str, replica: int, revision: int, changed: bool, created_ms: int, replaced_ms: int, judgement: Judgement
) -> Receipt:
    """Return the acknowledgement of a report."""
    return Receipt(
        name=name,
        replica=replica,
        revision=revision,
        changed=changed,
        created_at=moment(created_ms),
        replaced_at=moment(replaced_ms),
        verdict=judgement.verdict,
        codes=codes_of(judgement.findings),
        fixes=fixes_of(judgement.findings),
    )
