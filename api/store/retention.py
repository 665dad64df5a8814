"""Retention of the history over all subjects, by rows and age."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, select

from preshuffle.api.store.rows import now_ms
from preshuffle.api.store.schema import history
from preshuffle.api.store.store import Store

_BATCH: Final = 2000
"""Rows that one transaction deletes: others write in between."""
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Retention:
    """Limits of the history.

    Attributes:
        rows: largest number of changes, all subjects together.
        days: largest age; None for no limit.
    """

    rows: int
    days: float | None = None


def prune(store: Store, keep: Retention) -> int:
    """Delete history beyond the retention limits; return the number of rows.

    Announced registries stay: services on one store find the latest one there.

    Raises:
        StoreError: the store does not answer; rows that were deleted before stay deleted.
    """
    deleted = 0
    while True:
        with store.transaction(write=True) as connection:
            newest = select(history.c.id).order_by(history.c.id.desc()).offset(keep.rows).limit(1)
            excess = history.c.id <= (connection.execute(newest).scalar() or 0)
            if keep.days is not None:
                excess |= history.c.at_ms < now_ms() - int(keep.days * _DAY_MS)
            old = select(history.c.id).where(excess, history.c.action != "book").order_by(history.c.id)
            ids = old.limit(_BATCH).with_for_update(skip_locked=True)  # another service may be deleting too
            batch = connection.execute(delete(history).where(history.c.id.in_(ids))).rowcount
        deleted += batch
        if batch < _BATCH:
            return deleted
