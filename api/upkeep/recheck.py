"""Every replica judged again, after the registry has changed. Any number of processes may do it at once."""

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
from preshuffle.api.upkeep.worker_process import is_orphan
from preshuffle.registry import Registry

log = logging.getLogger("preshuffle.api")

BATCH: Final = 100
_REMEMBERED: Final = 1000


def is_due(store: Store, by: str) -> bool:
    """Whether there is a replica that another registry judged last, or none.

    Raises:
        StoreError: the store does not answer.
    """
    others = (replicas.c.judged_by < by, replicas.c.judged_by > by)  # what an index can find, as != it cannot
    with store.transaction() as connection:
        found = (connection.execute(select(replicas.c.judged_by).where(other).limit(1)).first() for other in others)
        return any(row is not None for row in found)


def recheck(
    store: Store,
    registry: Registry,
    stop: Callable[[], bool] = lambda: False,
    *,
    only: tuple[str, int] | None = None,
) -> int:
    """Judge every replica that this registry has not judged; return how many.

    Args:
        store: where they are.
        registry: the one that answers now.
        stop: asked between batches; what is not judged then stays as it was.
        only: this replica of this deployment alone.

    Raises:
        StoreError: the store does not answer; what was judged before stays written.
    """
    panel = _Panel(registry)
    by, place, done = judge_name(registry), ("", -1), 0
    while not stop():
        with store.transaction() as connection:
            others = select(replicas).where(replicas.c.judged_by != by)
            if only is not None:
                others = others.where(replicas.c.name == only[0], replicas.c.replica == only[1])
            further = others.where(tuple_(replicas.c.name, replicas.c.replica) > tuple_(*place))
            rows = connection.execute(further.order_by(replicas.c.name, replicas.c.replica).limit(BATCH)).all()
        if not rows:
            break
        done += _write(store, [(row, panel.judge(row)) for row in rows])
        place = (rows[-1].name, rows[-1].replica)
    return done


def recheck_in_child(url: str, registry: Registry, parent: int) -> int:
    """Judge every replica that this registry has not judged; return how many.

    Raises:
        StoreError: the store does not answer.
    """
    store = Store(url)
    try:
        return recheck(store, registry, lambda: is_orphan(parent))
    finally:
        store.close()


class _Panel:
    """Judges; replicas that the book cannot tell apart are judged once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._equivalence = ReportEquivalence(registry.book)
        self._known: dict[tuple[str, str | None], Judgement] = {}

    def judge(self, row: AnyRow) -> Judgement:
        try:
            key = (self._equivalence.key(row.report), row.baseline)
        except (LookupError, TypeError, ValueError):  # written at another time, by other rules
            return self._judge(row)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = self._judge(row)
        return self._known[key]

    def _judge(self, row: AnyRow) -> Judgement:
        """Judge; a report that cannot be judged must not keep all others from being judged: it is unknown."""
        baseline = read_baseline(row.baseline)
        try:
            return judge(ReplicaReport.model_validate_json(row.report), self._registry, baseline)
        except Exception:
            log.exception("replica %s of %s cannot be judged", row.replica, row.name)
            return Judgement(judge_name(self._registry), (), baseline or ())


def _write(store: Store, judged: list[tuple[AnyRow, Judgement]]) -> int:
    """Write judgements of reports that are still there and still the same."""
    now = now_ms()
    with store.changing("changes") as connection:
        wanted = in_keys(replicas, [(row.name, row.replica) for row, _ in judged])
        columns = select(replicas.c.name, replicas.c.replica, replicas.c.replaced_ms, replicas.c.judged_by)
        held = {(one.name, one.replica): one for one in connection.execute(columns.where(wanted))}
        current = [(row, found) for row, found in judged if _same(row, held.get((row.name, row.replica)))]
        if current:
            written = {id(found): judged_values(found) for _, found in current}
            values = [{"of": row.name, "number": row.replica, **written[id(found)]} for row, found in current]
            connection.execute(update(replicas).where(bound_key(replicas)), values)
            record(connection, now, [_entry(row, found) for row, found in current if _is_news(row, found)])
        return len(current)


def _same(read: AnyRow, held: AnyRow | None) -> bool:
    return held is not None and (held.replaced_ms, held.judged_by) == (read.replaced_ms, read.judged_by)


def _is_news(row: AnyRow, found: Judgement) -> bool:
    return bool(row.judged_by) and (row.verdict, row.state) != (found.verdict, found.state)


def _entry(row: AnyRow, found: Judgement) -> HistoryEntry:
    before, after = ReplicaStatus(row.verdict, row.state), ReplicaStatus(found.verdict, found.state)
    return HistoryEntry(SERVICE, "recheck", row.name, row.replica, None, before, after, found.by)
