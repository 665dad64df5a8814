"""Facts of replicas that an older version stored during an upgrade."""

from __future__ import annotations

from sqlalchemy import and_, insert, select, update

from preshuffle.api.store import Store, bound_key, replica_facts, replicas

_SAME_REPLICA = and_(replica_facts.c.name == replicas.c.name, replica_facts.c.replica == replicas.c.replica)
_NOT_NULL = ("models", "archs", "engines", "sizes", "codes")


def add_missing_facts(store: Store) -> int:
    """Give replicas without facts an empty row; return their number.

    They count as not judged, so that the next re-check fills the row in.

    Raises:
        StoreError: the store does not answer; nothing was changed.
    """
    columns = (replicas.c.name, replicas.c.replica, replicas.c.state, replicas.c.replaced_ms)
    query = select(*columns).outerjoin(replica_facts, _SAME_REPLICA).where(replica_facts.c.name.is_(None))
    with store.transaction() as connection:
        if connection.execute(query.limit(1)).first() is None:
            return 0
    with store.changing("changes") as connection:
        rows = connection.execute(query).all()
        empty = dict.fromkeys(_NOT_NULL, "")
        values = [
            {"name": row.name, "replica": row.replica, "state": row.state, "since_ms": row.replaced_ms, **empty}
            for row in rows
        ]
        if values:
            connection.execute(insert(replica_facts), values)
            keys = [{"of": row.name, "number": row.replica} for row in rows]
            connection.execute(update(replicas).where(bound_key(replicas)).values(judged_by=""), keys)
        return len(values)
