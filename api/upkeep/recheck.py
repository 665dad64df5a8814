"""Re-check: judge stored reports by a new registry.

Any number of processes may do it at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from sqlalchemy import select, tuple_, update

from preshuffle.api.fleet import Judgement, ReplicaReport, ReportEquivalence, judge, judge_name
from preshuffle.api.store import (
    SERVICE,
    AnyRow,
    HistoryEntry,
    ReplicaStatus,
    Store,
    bound_key,
    in_keys,
    judged_values,
    now_ms,
    read_baseline,
    record,
    replicas,
)
from preshuffle.registry import Registry
from preshuffle.registry.base.memo import Memo

log = logging.getLogger("preshuffle.api")

BATCH: Final = 100
_CACHED_JUDGEMENTS: Final = 1000


def is_due(store: Store, registry_name: str) -> bool:
    """Whether a stored judgement is missing or another registry's.

    Raises:
        StoreError: the store does not answer.
    """
    others = (replicas.c.judged_by < registry_name, replicas.c.judged_by > registry_name)  # != would use no index
    with store.transaction() as connection:
        rows = (connection.execute(select(replicas.c.judged_by).where(other).limit(1)).first() for other in others)
        return any(row is not None for row in rows)


def recheck(
    store: Store,
    registry: Registry,
    stop: Callable[[], bool] = lambda: False,
    *,
    only: tuple[str, int] | None = None,
) -> int:
    """Judge every replica that this registry has not judged; return their number.

    Args:
        store: holds the reports.
        registry: judges.
        stop: called between batches; True ends the run, and the rest stays as it was.
        only: deployment and replica to judge alone.

    Raises:
        StoreError: the store does not answer; earlier batches stay written.
    """
    judge_report = _CachingJudge(registry).judge
    registry_name, last_key, judged = judge_name(registry), ("", -1), 0
    while not stop():
        with store.transaction() as connection:
            others = select(replicas).where(replicas.c.judged_by != registry_name)
            if only is not None:
                others = others.where(replicas.c.name == only[0], replicas.c.replica == only[1])
            remaining = others.where(tuple_(replicas.c.name, replicas.c.replica) > tuple_(*last_key))
            rows = connection.execute(remaining.order_by(replicas.c.name, replicas.c.replica).limit(BATCH)).all()
        if not rows:
            break
        judged += _write(store, [(row, judge_report(row)) for row in rows])
        last_key = (rows[-1].name, rows[-1].replica)
    return judged


def recheck_in_child(url: str, registry: Registry) -> int:
    """Run ``recheck`` in a child process.

    Raises:
        StoreError: the store does not answer.
    """
    store = Store(url)
    try:
        return recheck(store, registry)
    finally:
        store.close()


class _CachingJudge:
    """Judges reports; equivalent ones are judged once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._equivalence = ReportEquivalence(registry.book)
        self._judgements = Memo(_CACHED_JUDGEMENTS)

    def judge(self, row: AnyRow) -> Judgement:
        try:
            key = (self._equivalence.key(row.report), row.baseline)
        except (LookupError, TypeError, ValueError):  # an older version wrote it in another form
            return self._judge(row)
        return self._judgements.get("judgement", key, lambda: self._judge(row))

    def _judge(self, row: AnyRow) -> Judgement:
        """Judge a report; a failure makes it unknown and stops no other."""
        baseline = read_baseline(row.baseline)
        try:
            return judge(ReplicaReport.model_validate_json(row.report), self._registry, baseline)
        except Exception:
            log.exception("judging replica %s of %s failed", row.replica, row.name)
            return Judgement(judge_name(self._registry), (), baseline or ())


def _write(store: Store, judged: list[tuple[AnyRow, Judgement]]) -> int:
    """Write judgements of reports that have not changed meanwhile; return their number."""
    now = now_ms()
    with store.changing("changes") as connection:
        condition = in_keys(replicas, [(row.name, row.replica) for row, _ in judged])
        columns = select(replicas.c.name, replicas.c.replica, replicas.c.replaced_ms, replicas.c.judged_by)
        stored = {(row.name, row.replica): row for row in connection.execute(columns.where(condition))}
        current = [
            (row, judgement) for row, judgement in judged if _is_unchanged(row, stored.get((row.name, row.replica)))
        ]
        if current:
            columns_of = {id(judgement): judged_values(judgement) for _, judgement in current}  # serialised once each
            values = [
                {"of": row.name, "number": row.replica, **columns_of[id(judgement)]} for row, judgement in current
            ]
            connection.execute(update(replicas).where(bound_key(replicas)), values)
            record(connection, now, [_entry(row, judgement) for row, judgement in current if _differs(row, judgement)])
        return len(current)


def _is_unchanged(read: AnyRow, stored: AnyRow | None) -> bool:
    return stored is not None and (stored.replaced_ms, stored.judged_by) == (read.replaced_ms, read.judged_by)


def _differs(row: AnyRow, judgement: Judgement) -> bool:
    """Whether verdict or state changed; a first judgement changes nothing."""
    return bool(row.judged_by) and (row.verdict, row.state) != (judgement.verdict, judgement.state)


def _entry(row: AnyRow, judgement: Judgement) -> HistoryEntry:
    before, after = ReplicaStatus(row.verdict, row.state), ReplicaStatus(judgement.verdict, judgement.state)
    return HistoryEntry(SERVICE, "recheck", row.name, row.replica, None, before, after, judgement.by)
