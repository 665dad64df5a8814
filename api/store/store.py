"""Store of deployments and their history in a database.

Calls block; the routes run them in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import SQLAlchemyError

from preshuffle.api.errors import StoreError, StoreFullError
from preshuffle.api.fleet import Beat, Deployment, Judgement, Marks, Receipt, ReplicaReport, State
from preshuffle.api.store import history, listing
from preshuffle.api.store.database import cause, repeat_when_full
from preshuffle.api.store.history import Events
from preshuffle.api.store.listing import (
    FleetFilter,
    FleetGroup,
    FleetOrder,
    Grouping,
    JudgedDeployment,
    MarkChange,
    Place,
)
from preshuffle.api.store.migrate import newest, upgrade, version_of
from preshuffle.api.store.open import open_database
from preshuffle.api.store.quota import Quota
from preshuffle.api.store.rows import bound_key, deployment_row, in_keys, moment, now_ms
from preshuffle.api.store.schema import EMITTED, beats, meta, replicas
from preshuffle.api.store.writes import IncomingReport, delete_replicas, increment, write_report

Precondition = Callable[[int | None], None]
"""Called with the stored revision (None: no such deployment); raises to prevent the change."""
ReplicaKey = tuple[str, int]
"""Deployment name and replica number."""
_BATCH: Final = 400
"""Largest number of rows per statement."""


def _no_precondition(_revision: int | None) -> None: ...


class Store:
    """Transactional store of deployments; acknowledged changes survive a crash."""

    def __init__(self, url: str, quota: Quota | None = None) -> None:
        """Open the database without changing it; ``create`` prepares it.

        Raises:
            StoreError: the URL or the database cannot be used.
        """
        self.url = url
        self._quota = quota or Quota()
        self._database = open_database(url)
        self.name = self._database.name

    def create(self) -> Store:
        """Create the schema, or migrate an older one.

        Raises:
            StoreError: the database cannot be written, or a newer version wrote it.
        """
        try:
            with self._database.begin(write=True) as connection:
                self._database.lock_schema(connection)
                upgrade(connection, self.name)
        except StoreError:
            self.close()
            raise
        except SQLAlchemyError as error:
            self.close()
            raise StoreError(f"{self.name} cannot be used: {cause(error)}; name another store with --db") from None
        self._database.keep_reserve()
        return self

    def check_current(self) -> None:
        """Raise unless the schema is current.

        Raises:
            StoreError: the database is empty, or an older version wrote it.
        """
        with self.transaction() as connection:
            version = version_of(connection, self.name)
        if version is None:
            raise StoreError(f"{self.name} holds no store yet; preshuffle serve makes one")
        if version != newest():
            reason = f"schema {version}, this one needs {newest()}; preshuffle serve brings it up to date"
            raise StoreError(f"{self.name} was written by an older preshuffle ({reason})")

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    def counters(self) -> dict[str, int]:
        """Return the change counters.

        Equal answers mean that nothing that is shown changed in between.

        Raises:
            StoreError: the store does not answer.
        """
        with self.transaction() as connection:
            counted = select(meta.c.key, meta.c.value).where(meta.c.key != EMITTED)
            return {row.key: row.value for row in connection.execute(counted)}

    def put(
        self,
        name: str,
        replica: int,
        report: ReplicaReport,
        judgement: Judgement,
        *,
        who: str = history.SERVICE,
        owner: str = "",
        env_left_out: int = 0,
        precondition: Precondition = _no_precondition,
    ) -> Receipt:
        """Store a replica's report, replacing its last one.

        An equal report changes no revision and no time but that of the heartbeat. ``owner``: the token, for its quota.

        Raises:
            QuotaError: it would be too much; nothing was changed.
            StoreError: the store does not answer or its disk is full; nothing was changed.
        """
        incoming = IncomingReport(name, replica, report, judgement, who, owner, env_left_out)
        return repeat_when_full(self._database, partial(self._put, incoming, precondition))

    def _put(self, incoming: IncomingReport, precondition: Precondition) -> Receipt:
        now = now_ms()
        with self.changing("changes") as connection:
            stored = deployment_row(connection, incoming.name)
            precondition(stored.revision if stored else None)
            return write_report(connection, incoming, stored, self._quota, now)

    def get(self, name: str) -> Deployment | None:
        """Return a deployment with all its replicas, or None.

        Raises:
            StoreError: the store does not answer.
        """
        with self.transaction() as connection:
            return listing.stored_deployment(connection, name, now_ms())

    def page(
        self, limit: int, after: str = "", states: Sequence[State] = (), part: str = ""
    ) -> tuple[list[JudgedDeployment], bool]:
        """Return a page of deployments by name, and whether there are more.

        Args:
            limit: size of the page.
            after: only names after this one.
            states: only deployments in any of these; empty for all.
            part: only names that contain it, ignoring case.

        Raises:
            StoreError: the store does not answer.
        """
        chosen, place = FleetFilter(tuple(states), part), (after, after) if after else None
        rows, last = self.fleet(limit, chosen, FleetOrder("name"), place)
        return rows, last is not None

    def fleet(
        self, limit: int, chosen: FleetFilter, order: FleetOrder, after: Place | None = None
    ) -> tuple[list[JudgedDeployment], Place | None]:
        """Return a page of deployments in some order; see ``store.listing.fleet_page``.

        Raises:
            StoreError: the store does not answer.
        """
        with self.transaction() as connection:
            return listing.fleet_page(connection, limit, now_ms(), chosen, order, after)

    def groups(self, chosen: FleetFilter, by: Grouping, label: str = "") -> tuple[FleetGroup, ...]:
        """Return groups of deployments that share a value; see ``store.listing.fleet_groups``.

        Raises:
            StoreError: the store does not answer.
        """
        with self.transaction() as connection:
            return listing.fleet_groups(connection, now_ms(), chosen, by, label)

    def has_more_than(self, number: int) -> bool:
        """Whether all deployments together have more than ``number`` replicas.

        Raises:
            StoreError: the store does not answer.
        """
        with self.transaction() as connection:
            return connection.execute(select(replicas.c.name).offset(number).limit(1)).first() is not None

    def tally(self, part: str = "") -> dict[State, int]:
        """Count deployments whose name contains ``part`` by state, without the silenced ones.

        Raises:
            StoreError: the store does not answer.
        """
        return self.count(FleetFilter(part=part))[0]

    def count(self, chosen: FleetFilter) -> tuple[dict[State, int], int]:
        """Count deployments by state, and the silenced ones; see ``store.listing.tally``.

        Raises:
            StoreError: the store does not answer.
        """
        with self.transaction() as connection:
            return listing.tally(connection, now_ms(), chosen)

    def mark(
        self,
        name: str,
        change: Callable[[Deployment, int], MarkChange],
        *,
        who: str,
        precondition: Precondition = _no_precondition,
    ) -> Marks | None:
        """Change a deployment's marks; return them, or None if unknown.

        ``change`` is called with the deployment as stored and the time in milliseconds.

        Raises:
            StoreError: the store does not answer or its disk is full; nothing was changed.
        """

        def write() -> Marks | None:
            now = now_ms()
            with self.changing("changes") as connection:
                row, stored = deployment_row(connection, name), listing.stored_deployment(connection, name, now)
                precondition(row.revision if row else None)
                if row is None or stored is None:
                    return None
                revision = increment(connection, "revision")
                listing.write_marks(connection, row, change(stored, now), who, now, revision)
                changed = listing.stored_deployment(connection, name, now)
                return changed.marks if changed else None

        return repeat_when_full(self._database, write)

    def delete(
        self,
        name: str,
        replica: int | None = None,
        *,
        who: str = history.SERVICE,
        precondition: Precondition = _no_precondition,
    ) -> bool:
        """Delete a deployment, or one replica; return whether there was any.

        The last replica takes the deployment along. Where the disk is full, disk space that was set aside is used.

        Raises:
            StoreError: the store does not answer or its disk is full; nothing was changed.
        """
        change = partial(self._delete, name, replica, who, precondition)
        return repeat_when_full(self._database, change, may_use_reserve=True)

    def keep_reserve(self) -> None:
        """Set disk space aside again where a deletion had to use it."""
        self._database.keep_reserve()

    def _delete(self, name: str, replica: int | None, who: str, precondition: Precondition) -> bool:
        now = now_ms()
        with self.changing("changes") as connection:
            stored = deployment_row(connection, name)
            precondition(stored.revision if stored else None)
            if stored is None:
                return False
            return delete_replicas(connection, stored, replica, who, now)

    def beat(self, replica_keys: Iterable[ReplicaKey]) -> dict[ReplicaKey, Beat]:
        """Store heartbeats of replicas in one transaction.

        Returns:
            Acknowledgements of the known replicas.

        Raises:
            StoreError: the store does not answer or its disk is full; nothing was changed.
        """
        now, keys = now_ms(), sorted(set(replica_keys))
        known: list[ReplicaKey] = []
        with self.transaction(write=True) as connection:
            for start in range(0, len(keys), _BATCH):
                batch = keys[start : start + _BATCH]
                rows = connection.execute(select(beats.c.name, beats.c.replica).where(in_keys(beats, batch)))
                known += sorted({(row.name, row.replica) for row in rows} & set(batch))
            if known:
                values = [{"of": of, "number": number} for of, number in known]
                connection.execute(update(beats).where(bound_key(beats)).values(seen_ms=now), values)
        at = moment(now)
        return {(of, number): Beat(name=of, replica=number, seen_at=at) for of, number in known}

    def history(
        self, limit: int, *, subject: str | None = None, before: int | None = None, since: datetime | None = None
    ) -> Events:
        """Return a page of the history, the newest change first; see ``store.history.read``.

        Raises:
            StoreError: the store does not answer.
        """
        with self.transaction() as connection:
            return history.read(connection, limit, subject=subject, before=before, since=since)

    def leadership(self) -> AbstractContextManager[bool]:
        """Try to become the one process that re-checks, until the context ends."""
        return self._database.leadership()

    @contextmanager
    def changing(self, *counters: str) -> Iterator[Connection]:
        """Return a write transaction that increments counters first.

        Writers of one counter so run one after the other.

        Raises:
            StoreError: the store does not answer or its disk is full; nothing was changed.
        """
        with self.transaction(write=True) as connection:
            for counter in counters:
                increment(connection, counter)
            yield connection

    @contextmanager
    def transaction(self, write: bool = False) -> Iterator[Connection]:
        """Return a transaction; writers pass ``write=True``.

        Raises:
            StoreError: the store does not answer; nothing was changed.
            StoreFullError: its disk is full; nothing was changed.
        """
        self._check_presence()
        try:
            with self._database.begin(write) as connection:
                yield connection
        except SQLAlchemyError as error:
            if self._database.is_full(error):
                message = f"{self.name} cannot grow, its disk is full: {cause(error)}; nothing was changed"
                raise StoreFullError(message) from error
            raise StoreError(f"{self.name} does not answer: {cause(error)}") from error
        if write:
            self._check_presence()  # what was written to a file that is gone must not be acknowledged

    def _check_presence(self) -> None:
        missing_reason = self._database.missing_reason()
        if missing_reason:
            raise StoreError(missing_reason)
