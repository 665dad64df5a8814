"""Queries of the store's tables, and their rows as values."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, and_, bindparam, select

from preshuffle.api.fleet import Baseline, PipelineStage
from preshuffle.api.store.schema import beats, deployments, replica_facts, replicas

AnyRow = Row[*tuple[Any, ...]]
SAME_FACTS: Final = and_(replica_facts.c.name == replicas.c.name, replica_facts.c.replica == replicas.c.replica)
SAME_REPLICA: Final = and_(beats.c.name == replicas.c.name, beats.c.replica == replicas.c.replica)


def now_ms() -> int:
    """Return the time in milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def moment(milliseconds: int) -> datetime:
    """Return stored milliseconds as a UTC time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def stage_in(row: AnyRow) -> PipelineStage | None:
    """Return the stage in a row's columns; None without stages."""
    return None if row.stages is None else PipelineStage(stage=row.stage, stages=row.stages)


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


def joined(values: Sequence[str]) -> str:
    """Join values for one column, a line feed around each."""
    return "\n" + "\n".join(value.replace("\n", " ") for value in values) + "\n" if values else ""


def parted(text: str) -> tuple[str, ...]:
    """Return the values of a column of several."""
    return tuple(text.strip("\n").split("\n")) if text else ()


def deployment_row(connection: Connection, name: str) -> AnyRow | None:
    """Return a deployment's row, or None."""
    return connection.execute(select(deployments).where(deployments.c.name == name)).one_or_none()
