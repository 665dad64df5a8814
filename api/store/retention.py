"""How much history is kept over all subjects; the oldest makes room, a little at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, select

from preshuffle.api.store.rows import now_ms
from preshuffle.api.store.schema import history
from preshuffle.api.store.store import Store

_AT_ONCE: Final = 2000
"""Rows that one transaction lets go: others write meanwhile."""
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept.

    Attributes:
        rows: how many changes of all subjects together.
        days: for how long; None: for as long as there is room.
    """

    rows: int
    days: float | None = None


def prune(store: Store, keep: Retention) -> int:
    """Let go of history that is too old or too much; return how many rows went.

    Which registries were announced is kept: services on one store tell each other by it which one is the latest.

    Raises:
        StoreError: the store does not answer; what went before stays gone.
    """
    gone = 0
    while True:
        with store.transaction(write=True) as connection:
            newest = select(history.c.id).order_by(history.c.id.desc()).offset(keep.rows).limit(1)
            excess = history.c.id <= (connection.execute(newest).scalar() or 0)
            if keep.days is not None:
                excess |= history.c.at_ms < now_ms() - int(keep.days * _DAY_MS)
            old = select(history.c.id).where(excess, history.c.action != "book").order_by(history.c.id)
            some = old.limit(_AT_ONCE).with_for_update(skip_locked=True)  # another service may be at it
            went = connection.execute(delete(history).where(history.c.id.in_(some))).rowcount
        gone += went
        if went < _AT_ONCE:
            return gone
