"""Queries of the store's tables, and their rows as values."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, Table, and_, bindparam, case, false, func, select, true

from preshuffle.api.fleet import (
    STATES,
    Baseline,
    Deployment,
    GroupJudgement,
    Replica,
    ReplicaReport,
    State,
    read_groups,
    worst_state,
)
from preshuffle.api.store.schema import beats, deployments, replicas
from preshuffle.registry.values.report import Verdict, worst

AnyRow = Row[*tuple[Any, ...]]
_RANKS: Final[dict[str, int]] = {state: rank for rank, state in enumerate(STATES)}
SAME_REPLICA: Final = and_(beats.c.name == replicas.c.name, beats.c.replica == replicas.c.replica)
_JUDGED: Final = (
    replicas.c.name,
    replicas.c.replica,
    replicas.c.verdict,
    replicas.c.state,
    replicas.c.judgement,
    replicas.c.judged_by,
)


@dataclass(frozen=True, slots=True)
class JudgedDeployment:
    """Deployment with its judgements, without its reports.

    Attributes:
        groups: judged groups of layers, each with the number of its replica.
        judged_by: the registries that judged, as ``judge_name`` writes them.
    """

    name: str
    revision: int
    created_at: datetime
    replaced_at: datetime
    seen_at: datetime
    verdict: Verdict
    state: State
    replicas: tuple[int, ...]
    groups: tuple[tuple[int, GroupJudgement], ...]
    judged_by: frozenset[str]


def now_ms() -> int:
    """Return the time in milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def moment(milliseconds: int) -> datetime:
    """Return stored milliseconds as a UTC time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def in_keys(table: Table, keys: Collection[tuple[str, int]]) -> Any:
    """Return an SQL condition for a superset of rows with these keys.

    It asks for a name and a replica that occur in any of them: SQLite answers that by index, while for
    ``(name, replica) IN (...)`` it would read the whole table.
    """
    names, numbers = {name for name, _ in keys}, {number for _, number in keys}
    return and_(table.c.name.in_(sorted(names)), table.c.replica.in_(sorted(numbers)))


def bound_key(table: Table) -> Any:
    """Return an SQL condition with bound parameters ``of`` (deployment) and ``number`` (replica)."""
    return and_(table.c.name == bindparam("of"), table.c.replica == bindparam("number"))


def is_silent(now: int) -> Any:
    """Return an SQL condition: no heartbeat for longer than the replica's ``ttl_s``."""
    return and_(beats.c.ttl_ms.is_not(None), beats.c.seen_ms + beats.c.ttl_ms < now)


def read_baseline(text: str | None) -> Baseline | None:
    """Parse a stored baseline."""
    return None if text is None else tuple(json.loads(text))


def states_of_deployments(now: int) -> Select[tuple[str, int]]:
    """Return the query of deployments' names and ranks of their worst states."""
    judged = case(_RANKS, value=replicas.c.state, else_=_RANKS["unknown"])
    stale = _RANKS["stale"]
    rank = case((and_(is_silent(now), judged < stale), stale), else_=judged)
    return select(replicas.c.name, func.max(rank).label("rank")).join(beats, SAME_REPLICA).group_by(replicas.c.name)


def names_in_state(now: int, states: Sequence[State]) -> Select[tuple[str]]:
    """Return the query of names of deployments in any of some states."""
    ranked = states_of_deployments(now).subquery()
    return select(ranked.c.name).where(ranked.c.rank.in_([_RANKS[state] for state in states]))


def has_part(name: Any, part: str) -> Any:
    """Return an SQL condition: the name contains ``part``, ignoring case."""
    if "\0" in part:
        return false()  # PostgreSQL refuses it, and no name has it
    return func.lower(name).contains(part.lower(), autoescape=True) if part else true()


def count_states(connection: Connection, now: int, part: str = "") -> dict[State, int]:
    """Count deployments whose name contains ``part`` by state."""
    ranked = states_of_deployments(now).where(has_part(replicas.c.name, part)).subquery()
    counted = select(ranked.c.rank, func.count().label("deployments")).group_by(ranked.c.rank)
    number = {row.rank: row.deployments for row in connection.execute(counted)}
    return {state: number.get(rank, 0) for rank, state in enumerate(STATES)}


def with_replicas(connection: Connection, rows: Sequence[AnyRow]) -> list[Deployment]:
    """Return deployments with their replicas' full reports."""
    query = select(replicas, beats.c.seen_ms).join(beats, SAME_REPLICA)
    query = query.where(replicas.c.name.in_([row.name for row in rows])).order_by(replicas.c.replica)
    by_name: dict[str, list[Replica]] = {row.name: [] for row in rows}
    for row in connection.execute(query):
        by_name[row.name].append(
            Replica(
                replica=row.replica,
                report=ReplicaReport.model_validate_json(row.report),
                created_at=moment(row.created_ms),
                replaced_at=moment(row.replaced_ms),
                seen_at=moment(row.seen_ms),
                judged_by=row.judged_by,
                baseline=read_baseline(row.baseline),
            )
        )
    return [
        Deployment(
            name=row.name,
            revision=row.revision,
            created_at=moment(row.created_ms),
            replaced_at=moment(row.replaced_ms),
            replicas=tuple(by_name[row.name]),
        )
        for row in rows
    ]


def with_judgements(connection: Connection, rows: Sequence[AnyRow], now: int) -> list[JudgedDeployment]:
    """Return deployments with their replicas' judgements."""
    columns = select(*_JUDGED, beats.c.seen_ms, case((is_silent(now), true()), else_=None).label("silent"))
    query = columns.join(beats, SAME_REPLICA).where(replicas.c.name.in_([row.name for row in rows]))
    by_name: dict[str, list[AnyRow]] = {row.name: [] for row in rows}
    for row in connection.execute(query.order_by(replicas.c.replica)):
        by_name[row.name].append(row)
    return [_judged_deployment(row, by_name[row.name]) for row in rows]


def _judged_deployment(row: AnyRow, members: Sequence[AnyRow]) -> JudgedDeployment:
    states: list[State] = [
        worst_state([member.state, "stale"]) if member.silent else member.state for member in members
    ]
    return JudgedDeployment(
        name=row.name,
        revision=row.revision,
        created_at=moment(row.created_ms),
        replaced_at=moment(row.replaced_ms),
        seen_at=moment(max(member.seen_ms for member in members)),
        verdict=worst(member.verdict for member in members),
        state=worst_state(states),
        replicas=tuple(member.replica for member in members),
        groups=tuple((member.replica, group) for member in members for group in read_groups(member.judgement)),
        judged_by=frozenset(member.judged_by for member in members),
    )


def deployment_row(connection: Connection, name: str) -> AnyRow | None:
    """Return a deployment's row, or None."""
    return connection.execute(select(deployments).where(deployments.c.name == name)).one_or_none()
