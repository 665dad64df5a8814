"""Statements that write the store's rows, inside the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from preshuffle.api.fleet import (
    Judgement,
    Receipt,
    ReplicaFacts,
    ReplicaReport,
    State,
    codes_of,
    facts_of,
    fixes_of,
    worst_state,
)
from preshuffle.api.store import history
from preshuffle.api.store.history import Circumstances, FieldChange, HistoryEntry, ReplicaStatus
from preshuffle.api.store.listing import last_marks, write_labels
from preshuffle.api.store.quota import Quota, charge
from preshuffle.api.store.rows import SAME_FACTS, SAME_REPLICA, AnyRow, joined, moment, parted
from preshuffle.api.store.schema import beats, deployments, meta, replica_facts, replicas

_SEVERAL: Final = frozenset({"models", "archs", "engines", "sizes", "codes"})
_CIRCUMSTANCES: Final = tuple(replica_facts.c[name] for name in ("node", "codes", "digest", "stage", "stages"))


@dataclass(frozen=True, slots=True)
class IncomingReport:
    """A judged report of one replica.

    Attributes:
        who: the author, for the history.
        owner: the token, for its quota.
        env_left_out: number of variables that were removed from the report.
    """

    name: str
    replica: int
    report: ReplicaReport
    judgement: Judgement
    who: str = history.SERVICE
    owner: str = ""
    env_left_out: int = 0


def increment(connection: Connection, key: str) -> int:
    """Increment a counter and return it; others wait until this transaction ends."""
    counter = meta.c.key == key
    connection.execute(update(meta).where(counter).values(value=meta.c.value + 1))
    number: int = connection.execute(select(meta.c.value).where(counter)).scalar_one()
    return number


def write_report(
    connection: Connection, incoming: IncomingReport, stored: AnyRow | None, quota: Quota, now: int
) -> Receipt:
    """Write a replica's report and judgement, replacing its last one.

    Args:
        connection: a write transaction.
        incoming: the report.
        stored: the deployment's row; None for a new one.
        quota: limits of what is stored.
        now: milliseconds since the epoch.

    Raises:
        QuotaError: it would be too much.
    """
    name, replica, judgement = incoming.name, incoming.replica, incoming.judgement
    text = incoming.report.canonical()
    before = _replica_row(connection, name, replica)
    if stored and before and before.report == text:
        connection.execute(_heartbeat_update(name, replica).values(seen_ms=now))
        return _receipt(incoming, stored.revision, False, before.created_ms, before.replaced_ms)
    revision = increment(connection, "revision")
    _write_deployment(connection, name, revision, now, new=stored is None)
    _write_replica(connection, incoming, text, now, new=before is None)
    _write_beat(connection, incoming, now, new=before is None)
    status, facts = _status(before), facts_of(incoming.report, judgement)
    kept = status is not None and status.state == judgement.state
    values = facts_values(facts, judgement.state, None if kept else now)
    row = {"of": name, "number": replica, "env_left_out": incoming.env_left_out, **values}
    write_facts(connection, [row], new=before is None)
    _describe(connection, incoming)
    charge(connection, quota, name, replica, incoming.owner, len(text.encode()) + len(judgement.text.encode()))
    entry = HistoryEntry(
        incoming.who,
        "report",
        name,
        replica,
        revision,
        status,
        ReplicaStatus(judgement.verdict, judgement.state),
        judgement.by,
        history.differences(json.loads(before.report) if before else None, json.loads(text)),
        circumstances_of(facts),
    )
    history.record(connection, now, [entry])
    return _receipt(incoming, revision, True, before.created_ms if before else now, now)


def delete_replicas(connection: Connection, stored: AnyRow, replica: int | None, who: str, now: int) -> bool:
    """Delete a deployment's replicas, or one; return whether any existed.

    The last replica takes the deployment along.
    """
    name = stored.name
    columns = (replicas.c.replica, replicas.c.verdict, replicas.c.state, beats.c.silent, *_CIRCUMSTANCES)
    members = select(*columns).join(beats, SAME_REPLICA).join(replica_facts, SAME_FACTS).where(replicas.c.name == name)
    rows = connection.execute(members.order_by(replicas.c.replica)).all()
    deleted = [row for row in rows if replica in (None, row.replica)]
    if not deleted:
        return False
    # heartbeats lock these rows in this order too
    connection.execute(select(beats).where(beats.c.name == name).order_by(beats.c.replica).with_for_update())
    marks: list[FieldChange] = []
    if len(deleted) == len(rows):
        marks = last_marks(connection, stored)
        connection.execute(delete(deployments).where(deployments.c.name == name))
    else:
        connection.execute(delete(replicas).where(replicas.c.name == name, replicas.c.replica == replica))
    revision = increment(connection, "revision")
    _write_deployment(connection, name, revision, now, new=False)
    history.record(connection, now, [_forgotten(row, name, revision, who, marks) for row in deleted])
    return True


def shown_state(state: State, silent: bool) -> State:
    """Return a replica's shown state: ``stale`` where silent, unless worse."""
    return worst_state([state, "stale"]) if silent else state


def judged_values(judgement: Judgement) -> dict[str, Any]:
    """Return a judgement as columns of ``replicas``."""
    return {
        "verdict": judgement.verdict,
        "state": judgement.state,
        "judged_by": judgement.by,
        "judgement": judgement.text,
        "baseline": json.dumps(judgement.baseline),
    }


def facts_values(facts: ReplicaFacts, state: State, since: int | None) -> dict[str, Any]:
    """Return facts as columns of ``replica_facts``.

    ``since``: when the state that is shown began; None where that did not change.
    """
    values = {field: joined(value) if field in _SEVERAL else value for field, value in asdict(facts).items()}
    return {**values, "state": state, **({} if since is None else {"since_ms": since})}


def write_facts(connection: Connection, rows: Sequence[dict[str, Any]], *, new: bool) -> None:
    """Insert or update facts; ``of`` and ``number`` name the replica."""
    if new:
        connection.execute(insert(replica_facts), [_with_key(row) for row in rows])
        return
    key = (replica_facts.c.name == bindparam("of")) & (replica_facts.c.replica == bindparam("number"))
    for since in (False, True):  # one statement has one set of columns
        same = [row for row in rows if ("since_ms" in row) is since]
        if same:
            connection.execute(update(replica_facts).where(key), same)


def circumstances_of(facts: ReplicaFacts) -> Circumstances:
    """Return what the history records of facts."""
    return Circumstances(facts.node, facts.codes, facts.cause, facts.digest, facts.stage, facts.stages)


def _with_key(row: dict[str, Any]) -> dict[str, Any]:
    values = dict(row)
    return {"name": values.pop("of"), "replica": values.pop("number"), **values}


def _replica_row(connection: Connection, name: str, replica: int) -> AnyRow | None:
    query = select(replicas, beats.c.silent).join(beats, SAME_REPLICA).where(_is_replica(name, replica))
    return connection.execute(query).one_or_none()


def _write_deployment(connection: Connection, name: str, revision: int, now: int, *, new: bool) -> None:
    """Insert a deployment, or update its revision and time."""
    if new:
        values = {"name": name, "revision": revision, "created_ms": now, "replaced_ms": now}
        connection.execute(insert(deployments).values(**values))
        return
    connection.execute(update(deployments).where(deployments.c.name == name).values(revision=revision, replaced_ms=now))


def _describe(connection: Connection, incoming: IncomingReport) -> None:
    """Write the labels, owner and link that a report has; what it leaves out stays."""
    report = incoming.report
    if report.labels is not None:
        write_labels(connection, incoming.name, report.labels)
    values = {name: getattr(report, name) for name in ("owner", "link") if name in report.model_fields_set}
    if values:
        connection.execute(update(deployments).where(deployments.c.name == incoming.name).values(**values))


def _write_replica(connection: Connection, incoming: IncomingReport, text: str, now: int, *, new: bool) -> None:
    """Insert or update a replica's report and judgement."""
    name, replica = incoming.name, incoming.replica
    values = {"report": text, "replaced_ms": now, **judged_values(incoming.judgement)}
    if new:
        connection.execute(insert(replicas).values(name=name, replica=replica, created_ms=now, **values))
        return
    connection.execute(update(replicas).where(_is_replica(name, replica)).values(**values))


def _write_beat(connection: Connection, incoming: IncomingReport, now: int, *, new: bool) -> None:
    """Insert or update a replica's heartbeat and its ``ttl_s``."""
    name, replica, ttl_s = incoming.name, incoming.replica, incoming.report.ttl_s
    values = {"seen_ms": now, "ttl_ms": ttl_s and ttl_s * 1000, "silent": False}
    if new:
        connection.execute(insert(beats).values(name=name, replica=replica, **values))
        return
    connection.execute(_heartbeat_update(name, replica).values(**values))


def _heartbeat_update(name: str, replica: int) -> Any:
    """Return the UPDATE statement of a replica's heartbeat, without values."""
    return update(beats).where(beats.c.name == name, beats.c.replica == replica)


def _is_replica(name: str, replica: int) -> Any:
    return (replicas.c.name == name) & (replicas.c.replica == replica)


def _status(row: AnyRow | None) -> ReplicaStatus | None:
    """Return the verdict and shown state in a replica's row."""
    return ReplicaStatus(row.verdict, shown_state(row.state, row.silent)) if row is not None else None


def _forgotten(row: AnyRow, name: str, revision: int, who: str, marks: Sequence[FieldChange]) -> HistoryEntry:
    cause = f"forgotten by {who}"[:200]
    circumstances = Circumstances(row.node, parted(row.codes), cause, row.digest, row.stage, row.stages)
    status = _status(row)
    return HistoryEntry(who, "forget", name, row.replica, revision, status, changes=marks, circumstances=circumstances)


def _receipt(incoming: IncomingReport, revision: int, changed: bool, created_ms: int, replaced_ms: int) -> Receipt:
    """Return the acknowledgement of a report."""
    judgement = incoming.judgement
    return Receipt(
        name=incoming.name,
        replica=incoming.replica,
        revision=revision,
        changed=changed,
        created_at=moment(created_ms),
        replaced_at=moment(replaced_ms),
        verdict=judgement.verdict,
        codes=codes_of(judgement.findings),
        fixes=fixes_of(judgement.findings),
        env_left_out=incoming.env_left_out,
    )
