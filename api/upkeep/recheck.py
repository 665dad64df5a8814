"""Re-check: judge stored reports by a new registry.

Any number of processes may do it at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, and_, select, tuple_, update

from preshuffle.api.fleet import (
    Judgement,
    ReplicaFacts,
    ReplicaReport,
    ReportEquivalence,
    canonical_json,
    clean_report,
    facts_of,
    judge,
    judge_name,
)
from preshuffle.api.store import (
    SERVICE,
    AnyRow,
    HistoryEntry,
    ReplicaStatus,
    Store,
    beats,
    bound_key,
    circumstances_of,
    facts_values,
    in_keys,
    judged_values,
    now_ms,
    read_baseline,
    record,
    replica_facts,
    replicas,
    shown_state,
    write_facts,
)
from preshuffle.api.upkeep.missing_facts import add_missing_facts
from preshuffle.registry import Registry
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.loading import Book

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
    add_missing_facts(store)
    while not stop():
        with store.transaction() as connection:
            same_facts = and_(replica_facts.c.name == replicas.c.name, replica_facts.c.replica == replicas.c.replica)
            stored = select(replicas, replica_facts.c.node).join(replica_facts, same_facts)
            others = stored.where(replicas.c.judged_by != registry_name)
            if only is not None:
                others = others.where(replicas.c.name == only[0], replicas.c.replica == only[1])
            remaining = others.where(tuple_(replicas.c.name, replicas.c.replica) > tuple_(*last_key))
            rows = connection.execute(remaining.order_by(replicas.c.name, replicas.c.replica).limit(BATCH)).all()
        if not rows:
            break
        judged += _write(store, registry, [(row, *judge_report(row)) for row in rows])
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


_Judged = tuple[Judgement, ReplicaFacts]
_UNREADABLE: Final = ReplicaFacts(None, (), (), (), (), (), "its stored report cannot be judged", None)


class _CachingJudge:
    """Judges reports; equivalent ones are judged once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._equivalence = ReportEquivalence(registry.book)
        self._judgements = Memo(_CACHED_JUDGEMENTS)

    def judge(self, row: AnyRow) -> _Judged:
        try:
            key = (self._equivalence.key(row.report), row.baseline)
        except (LookupError, TypeError, ValueError):  # an older version wrote it in another form
            return self._judge(row)
        judgement, facts = self._judgements.get("judgement", key, lambda: self._judge(row))
        return judgement, replace(facts, node=row.node)  # equivalent reports may come from other machines

    def _judge(self, row: AnyRow) -> _Judged:
        """Judge a report; a failure makes it unknown and stops no other."""
        baseline = read_baseline(row.baseline)
        try:
            report = ReplicaReport.model_validate_json(row.report)
            judgement = judge(report, self._registry, baseline)
            return judgement, facts_of(report, judgement)
        except Exception:
            log.exception("judging replica %s of %s failed", row.replica, row.name)
            failed = Judgement(judge_name(self._registry), (), baseline or (), failed=True)
            return failed, replace(_UNREADABLE, node=row.node)


def _write(store: Store, registry: Registry, judged: list[tuple[AnyRow, Judgement, ReplicaFacts]]) -> int:
    """Write judgements of reports that have not changed meanwhile; return their number."""
    now = now_ms()
    with store.changing("changes") as connection:
        condition = in_keys(replicas, [(row.name, row.replica) for row, _, _ in judged])
        same_replica = and_(beats.c.name == replicas.c.name, beats.c.replica == replicas.c.replica)
        columns = select(
            replicas.c.name, replicas.c.replica, replicas.c.replaced_ms, replicas.c.judged_by, beats.c.silent
        ).join(beats, same_replica)
        stored = {(row.name, row.replica): row for row in connection.execute(columns.where(condition))}
        current = [
            _Rejudged(row, judgement, facts, stored[row.name, row.replica].silent)
            for row, judgement, facts in judged
            if _is_unchanged(row, stored.get((row.name, row.replica)))
        ]
        if current:
            columns_of = {id(one.judgement): judged_values(one.judgement) for one in current}  # serialised once each
            values = [{**one.key, **columns_of[id(one.judgement)]} for one in current]
            connection.execute(update(replicas).where(bound_key(replicas)), values)
            write_facts(connection, [one.facts_values(now) for one in current], new=False)
            _clean(connection, [one.row for one in current], registry.book)
            record(connection, now, [one.entry for one in current if one.differs])
        return len(current)


def _clean(connection: Connection, rows: Sequence[AnyRow], book: Book) -> None:
    """Remove environment variables that the book does not know from stored reports, and count them."""
    for row in rows:
        if '"env"' not in row.report:
            continue
        try:
            report, number = clean_report(json.loads(row.report), book)
        except (LookupError, TypeError, ValueError, AttributeError):  # an older version wrote it in another form
            continue
        if number:
            key = {"of": row.name, "number": row.replica}
            values = {"report": canonical_json(report)}
            connection.execute(update(replicas).where(bound_key(replicas)).values(**values), key)
            counted = {"env_left_out": replica_facts.c.env_left_out + number}
            connection.execute(update(replica_facts).where(bound_key(replica_facts)).values(**counted), key)


@dataclass(frozen=True, slots=True)
class _Rejudged:
    """One replica with its new judgement."""

    row: AnyRow
    judgement: Judgement
    facts: ReplicaFacts
    silent: bool

    @property
    def key(self) -> dict[str, Any]:
        return {"of": self.row.name, "number": self.row.replica}

    @property
    def before(self) -> ReplicaStatus:
        return ReplicaStatus(self.row.verdict, shown_state(self.row.state, self.silent))

    @property
    def after(self) -> ReplicaStatus:
        return ReplicaStatus(self.judgement.verdict, shown_state(self.judgement.state, self.silent))

    @property
    def differs(self) -> bool:
        """Whether verdict or state changed; a first judgement changes nothing."""
        return bool(self.row.judged_by) and self.before != self.after

    def facts_values(self, now: int) -> dict[str, Any]:
        began = None if self.before.state == self.after.state else now
        return {**self.key, **facts_values(self.facts, self.judgement.state, began)}

    @property
    def entry(self) -> HistoryEntry:
        row, circumstances = self.row, circumstances_of(self.facts)
        return HistoryEntry(
            SERVICE,
            "recheck",
            row.name,
            row.replica,
            None,
            self.before,
            self.after,
            self.judgement.by,
            circumstances=circumstances,
        )


def _is_unchanged(read: AnyRow, stored: AnyRow | None) -> bool:
    return stored is not None and (stored.replaced_ms, stored.judged_by) == (read.replaced_ms, read.judged_by)
