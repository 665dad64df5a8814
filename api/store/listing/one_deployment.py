"""One deployment with its replicas' full reports."""

from __future__ import annotations

from sqlalchemy import Connection, case, select, true

from preshuffle.api.fleet import Deployment, Replica, ReplicaReport, State, worst_state
from preshuffle.api.store.listing.marks import labels_of, marks_of
from preshuffle.api.store.rows import SAME_FACTS, SAME_REPLICA, AnyRow, deployment_row, is_silent, moment, read_baseline
from preshuffle.api.store.schema import beats, replica_facts, replicas


def stored_deployment(connection: Connection, name: str, now: int) -> Deployment | None:
    """Return a deployment with all its replicas and marks, or None."""
    row = deployment_row(connection, name)
    if row is None:
        return None
    silent = case((is_silent(now), true()), else_=None).label("silent")
    facts = (replica_facts.c.since_ms, replica_facts.c.env_left_out)
    query = select(replicas, beats.c.seen_ms, beats.c.ttl_ms, silent, *facts).join(beats, SAME_REPLICA)
    query = query.join(replica_facts, SAME_FACTS).where(replicas.c.name == name).order_by(replicas.c.replica)
    members = connection.execute(query).all()
    state = worst_state(_state(member) for member in members)
    since = min((_since(member) for member in members if _state(member) == state), default=now)
    return Deployment(
        name=row.name,
        revision=row.revision,
        created_at=moment(row.created_ms),
        replaced_at=moment(row.replaced_ms),
        state=state,
        since=moment(since),
        marks=marks_of(row, labels_of(connection, name), state, moment(since), now),
        replicas=tuple(_replica(member) for member in members),
    )


def _replica(row: AnyRow) -> Replica:
    return Replica(
        replica=row.replica,
        report=ReplicaReport.model_validate_json(row.report),
        created_at=moment(row.created_ms),
        replaced_at=moment(row.replaced_ms),
        seen_at=moment(row.seen_ms),
        since=moment(_since(row)),
        env_left_out=row.env_left_out,
        judged_by=row.judged_by,
        baseline=read_baseline(row.baseline),
    )


def _state(row: AnyRow) -> State:
    return worst_state([row.state, "stale"]) if row.silent else row.state


def _since(row: AnyRow) -> int:
    """Return since when a replica is in its state, in milliseconds."""
    since: int = row.seen_ms + row.ttl_ms if _state(row) == "stale" else row.since_ms
    return since
