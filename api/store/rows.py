"""Rows of the store's tables as the values that the service works with."""

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
_HEARD: Final = and_(beats.c.name == replicas.c.name, beats.c.replica == replicas.c.replica)
_LISTED: Final = (replicas.c.name, replicas.c.replica, replicas.c.verdict, replicas.c.state, replicas.c.judgement)


@dataclass(frozen=True, slots=True)
class JudgedDeployment:
    """A deployment as a list has it: what was judged, not what was told.

    Attributes:
        groups: what was judged, each with the replica that it was told by.
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


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def moment(milliseconds: int) -> datetime:
    """Return a stored time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def in_keys(table: Table, wanted: Collection[tuple[str, int]]) -> Any:
    """Return the SQL of: name and replica both occur among these. All of them are such rows, and some others may be.

    SQLite finds them by index; for ``(name, replica) IN (...)`` it would read the whole table.
    """
    names, numbers = {name for name, _ in wanted}, {number for _, number in wanted}
    return and_(table.c.name.in_(sorted(names)), table.c.replica.in_(sorted(numbers)))


def bound_key(table: Table) -> Any:
    """Return the SQL of: the replica that a row of parameters names, as ``of`` and ``number``."""
    return and_(table.c.name == bindparam("of"), table.c.replica == bindparam("number"))


def is_silent(now: int) -> Any:
    """Return the SQL of: this replica has been silent for longer than it said it would."""
    return and_(beats.c.ttl_ms.is_not(None), beats.c.seen_ms + beats.c.ttl_ms < now)


def read_baseline(text: str | None) -> Baseline | None:
    """Read the decision digests that drift is measured from."""
    return None if text is None else tuple(json.loads(text))


def states_of_deployments(now: int) -> Select[tuple[str, int]]:
    """Return the query of every deployment's name and the rank of its state, the worst of its replicas'."""
    told = case(_RANKS, value=replicas.c.state, else_=_RANKS["unknown"])
    stale = _RANKS["stale"]
    rank = case((and_(is_silent(now), told < stale), stale), else_=told)
    return select(replicas.c.name, func.max(rank).label("rank")).join(beats, _HEARD).group_by(replicas.c.name)


def names_in_state(now: int, states: Sequence[State]) -> Select[tuple[str]]:
    """Return the query of the names of deployments that are in one of some states."""
    ranked = states_of_deployments(now).subquery()
    return select(ranked.c.name).where(ranked.c.rank.in_([_RANKS[state] for state in states]))


def has_part(name: Any, part: str) -> Any:
    """Return the SQL of: this name has a part in it, in whatever case; nothing is in every name."""
    if "\0" in part:
        return false()  # PostgreSQL refuses it, and no name has it
    return func.lower(name).contains(part.lower(), autoescape=True) if part else true()


def count_states(connection: Connection, now: int, part: str = "") -> dict[State, int]:
    """Return how many deployments (those whose name has ``part``) are in each state."""
    ranked = states_of_deployments(now).where(has_part(replicas.c.name, part)).subquery()
    counted = select(ranked.c.rank, func.count().label("deployments")).group_by(ranked.c.rank)
    found = {row.rank: row.deployments for row in connection.execute(counted)}
    return {state: found.get(rank, 0) for rank, state in enumerate(STATES)}


def with_replicas(connection: Connection, rows: Sequence[AnyRow]) -> list[Deployment]:
    """Return deployments with everything that their replicas told."""
    mine = replicas.c.name.in_([row.name for row in rows])
    wanted = select(replicas, beats.c.seen_ms).join(beats, _HEARD).where(mine).order_by(replicas.c.replica)
    by_name: dict[str, list[Replica]] = {row.name: [] for row in rows}
    for row in connection.execute(wanted):
        by_name[row.name].append(
            Replica(
                replica=row.replica,
                report=ReplicaReport.model_validate_json(row.report),
                created_at=moment(row.created_ms),
                replaced_at=moment(row.replaced_ms),
                seen_at=moment(row.seen_ms),
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
    """Return deployments with what was judged of their replicas."""
    columns = select(*_LISTED, beats.c.seen_ms, case((is_silent(now), true()), else_=None).label("silent"))
    wanted = columns.join(beats, _HEARD).where(replicas.c.name.in_([row.name for row in rows]))
    by_name: dict[str, list[AnyRow]] = {row.name: [] for row in rows}
    for row in connection.execute(wanted.order_by(replicas.c.replica)):
        by_name[row.name].append(row)
    return [_listed(row, by_name[row.name]) for row in rows]


def _listed(row: AnyRow, mine: Sequence[AnyRow]) -> JudgedDeployment:
    states: list[State] = [worst_state([one.state, "stale"]) if one.silent else one.state for one in mine]
    return JudgedDeployment(
        name=row.name,
        revision=row.revision,
        created_at=moment(row.created_ms),
        replaced_at=moment(row.replaced_ms),
        seen_at=moment(max(one.seen_ms for one in mine)),
        verdict=worst(one.verdict for one in mine),
        state=worst_state(states),
        replicas=tuple(one.replica for one in mine),
        groups=tuple((one.replica, group) for one in mine for group in read_groups(one.judgement)),
    )


def deployment_row(connection: Connection, name: str) -> AnyRow | None:
    """Return a deployment's own row."""
    return connection.execute(select(deployments).where(deployments.c.name == name)).one_or_none()
