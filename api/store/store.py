"""The store of deployments. Calls block; the routes run them in threads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from preshuffle.api.errors import StoreError, StoreFullError
from preshuffle.api.fleet import Beat, Deployment, Judgement, Receipt, ReplicaReport, State
from preshuffle.api.store import history
from preshuffle.api.store.database import cause
from preshuffle.api.store.history import Events, HistoryEntry, ReplicaStatus
from preshuffle.api.store.migrate import newest, upgrade, version_of
from preshuffle.api.store.open import open_database
from preshuffle.api.store.rows import (
    AnyRow,
    JudgedDeployment,
    bound_key,
    count_states,
    deployment_row,
    has_part,
    in_keys,
    moment,
    names_in_state,
    now_ms,
    with_judgements,
    with_replicas,
)
from preshuffle.api.store.schema import beats, deployments, meta, replicas
from preshuffle.api.store.writes import heard, increment, replica_row, write_beat, write_deployment, write_replica

Precondition = Callable[[int | None], None]
"""Called with the revision that is stored (None: no such deployment); raises where the change must not happen."""
ReplicaKey = tuple[str, int]
"""A deployment's name and a replica's number."""
_AT_ONCE: Final = 400
"""Rows in one statement."""


def _no_precondition(_revision: int | None) -> None:
    return


class Store:
    """Deployments in a database. Every change is one transaction; what is acknowledged survives a crash."""

    def __init__(self, url: str) -> None:
        """Look at the database without changing it; ``create`` makes it ready.

        Raises:
            StoreError: the URL or the database cannot be used.
        """
        self.url = url
        self._database = open_database(url)
        self.name = self._database.name

    def create(self) -> Store:
        """Create what is missing, and bring what an older version wrote up to date.

        Raises:
            StoreError: the database cannot be written, or a newer version wrote it.
        """
        try:
            with self._database.begin(write=True) as connection:
                self._database.lock_schema(connection)
                upgrade(connection, self.name)
        except SQLAlchemyError as error:
            self.close()
            raise StoreError(f"{self.name} cannot be used: {cause(error)}; name another store with --db") from None
        return self

    def check_current(self) -> None:
        """Make sure that the store needs no ``create``.

        Raises:
            StoreError: there is nothing yet, or an older version wrote it.
        """
        with self.transaction() as connection:
            version = version_of(connection, self.name)
        if version is None:
            raise StoreError(f"{self.name} holds no store yet; preshuffle serve makes one")
        if version != newest():
            text = f"schema {version}, this one needs {newest()}; preshuffle serve brings it up to date"
            raise StoreError(f"{self.name} was written by an older preshuffle ({text})")

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    def counters(self) -> dict[str, int]:
        """Return what counts changes; two equal answers mean that nothing was changed between them.

        Raises:
            StoreError: the store does not answer.
        """
        with self.transaction() as connection:
            return {row.key: row.value for row in connection.execute(select(meta.c.key, meta.c.value))}

    def put(
        self,
        name: str,
        replica: int,
        report: ReplicaReport,
        judgement: Judgement,
        *,
        who: str = history.SERVICE,
        precondition: Precondition = _no_precondition,
    ) -> Receipt:
        """Store what a replica reports, in the place of what it reported before.

        The same report twice leaves revision and times alone, save that the replica was seen.

        Raises:
            StoreError: the store does not answer or its disk is full; nothing was changed.
        """
        text, now = report.canonical(), now_ms()
        with self.changing("changes") as connection:
            stored = deployment_row(connection, name)
            precondition(stored.revision if stored else None)
            before = replica_row(connection, name, replica)
            if stored and before and before.report == text:
                connection.execute(heard(name, replica).values(seen_ms=now))
                return _receipt(name, replica, stored.revision, False, before.created_ms, before.replaced_ms)
            revision = increment(connection, "revision")
            write_deployment(connection, name, revision, now, new=stored is None)
            write_replica(connection, name, replica, text, judgement, now, new=before is None)
            write_beat(connection, name, replica, report, now, new=before is None)
            entry = HistoryEntry(
                who,
                "report",
                name,
                replica,
                revision,
                _standing(before),
                ReplicaStatus(judgement.verdict, judgement.state),
                judgement.by,
                history.differences(json.loads(before.report) if before else None, json.loads(text)),
            )
            history.record(connection, now, [entry])
            return _receipt(name, replica, revision, True, before.created_ms if before else now, now)

    def get(self, name: str) -> Deployment | None:
        """Return a deployment with all its replicas.

        Raises:
            StoreError: the store does not answer.
        """
        with self.transaction() as connection:
            row = deployment_row(connection, name)
            return with_replicas(connection, [row])[0] if row else None

    def page(
        self, limit: int, after: str = "", states: Sequence[State] = (), part: str = ""
    ) -> tuple[list[JudgedDeployment], bool]:
        """Return up to ``limit`` deployments by name, those after a name, and whether there are more.

        Args:
            limit: how many.
            after: a name.
            states: only deployments in one of them; empty: in any.
            part: only those whose name has it, in whatever case.

        Raises:
            StoreError: the store does not answer.
        """
        now = now_ms()
        wanted = select(deployments).where(deployments.c.name > after, has_part(deployments.c.name, part))
        if states:
            wanted = wanted.where(deployments.c.name.in_(names_in_state(now, states)))
        with self.transaction() as connection:
            rows = connection.execute(wanted.order_by(deployments.c.name).limit(limit + 1)).all()
            return with_judgements(connection, rows[:limit], now), len(rows) > limit

    def has_more_than(self, number: int) -> bool:
        """Whether there are more replicas than this, of all deployments together.

        Raises:
            StoreError: the store does not answer.
        """
        with self.transaction() as connection:
            return connection.execute(select(replicas.c.name).offset(number).limit(1)).first() is not None

    def tally(self, part: str = "") -> dict[State, int]:
        """Return how many deployments (those whose name has ``part``) are in each state.

        Raises:
            StoreError: the store does not answer.
        """
        with self.transaction() as connection:
            return count_states(connection, now_ms(), part)

    def delete(
        self,
        name: str,
        replica: int | None = None,
        *,
        who: str = history.SERVICE,
        precondition: Precondition = _no_precondition,
    ) -> bool:
        """Forget a deployment, or one replica of it (its last one takes the deployment along).

        Returns:
            Whether there was anything to forget.

        Raises:
            StoreError: the store does not answer or its disk is full; nothing was changed.
        """
        now = now_ms()
        with self.changing("changes") as connection:
            stored = deployment_row(connection, name)
            precondition(stored.revision if stored else None)
            if stored is None:
                return False
            mine = select(replicas.c.replica, replicas.c.verdict, replicas.c.state).where(replicas.c.name == name)
            rows = connection.execute(mine.order_by(replicas.c.replica)).all()
            going = [row for row in rows if replica in (None, row.replica)]
            if not going:
                return False
            # heartbeats lock these rows in this order too
            connection.execute(select(beats).where(beats.c.name == name).order_by(beats.c.replica).with_for_update())
            if len(going) == len(rows):
                connection.execute(delete(deployments).where(deployments.c.name == name))
            else:
                connection.execute(delete(replicas).where(replicas.c.name == name, replicas.c.replica == replica))
            revision = increment(connection, "revision")
            write_deployment(connection, name, revision, now, new=False)
            entries = [HistoryEntry(who, "forget", name, row.replica, revision, _standing(row)) for row in going]
            history.record(connection, now, entries)
            return True

    def beat(self, beating: Iterable[ReplicaKey]) -> dict[ReplicaKey, Beat]:
        """Write that replicas were heard of, all in one transaction.

        Returns:
            The receipts of those that are known.

        Raises:
            StoreError: the store does not answer or its disk is full; nothing was changed.
        """
        now, wanted = now_ms(), sorted(set(beating))
        known: list[ReplicaKey] = []
        with self.transaction(write=True) as connection:
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                rows = connection.execute(select(beats.c.name, beats.c.replica).where(in_keys(beats, some)))
                known += sorted({(row.name, row.replica) for row in rows} & set(some))
            if known:
                values = [{"of": of, "number": number} for of, number in known]
                connection.execute(update(beats).where(bound_key(beats)).values(seen_ms=now), values)
        at = moment(now)
        return {(of, number): Beat(name=of, replica=number, seen_at=at) for of, number in known}

    def history(
        self, limit: int, *, subject: str | None = None, before: int | None = None, since: datetime | None = None
    ) -> Events:
        """Return changes, the newest first; see ``preshuffle.api.store.history.read``.

        Raises:
            StoreError: the store does not answer.
        """
        with self.transaction() as connection:
            return history.read(connection, limit, subject=subject, before=before, since=since)

    def leadership(self) -> AbstractContextManager[bool]:
        """Return whether this process is the one that judges again; no other is until the context ends.

        Raises:
            StoreError: the store does not answer.
        """
        return self._database.leadership()

    def transaction(self, write: bool = False) -> AbstractContextManager[Connection]:
        """Return a transaction; a writer must say so.

        Raises:
            StoreError: the store does not answer; nothing was changed.
            StoreFullError: its disk is full; nothing was changed.
        """
        return self._transaction(write)

    @contextmanager
    def changing(self, *counters: str) -> Iterator[Connection]:
        """Return a transaction that changes what is shown: it counts first, and so waits for all others that do.

        Raises:
            StoreError: the store does not answer or its disk is full; nothing was changed.
        """
        with self._transaction(write=True) as connection:
            for counter in counters:
                increment(connection, counter)
            yield connection

    @contextmanager
    def _transaction(self, write: bool) -> Iterator[Connection]:
        gone = self._database.missing_reason()
        if gone:
            raise StoreError(gone)
        try:
            with self._database.begin(write) as connection:
                yield connection
        except SQLAlchemyError as error:
            if self._database.is_full(error):
                text = f"{self.name} cannot grow, its disk is full: {cause(error)}; nothing was changed"
                raise StoreFullError(text) from error
            raise StoreError(f"{self.name} does not answer: {cause(error)}") from error


def _standing(row: AnyRow | None) -> ReplicaStatus | None:
    return ReplicaStatus(row.verdict, row.state) if row is not None else None


def _receipt(name: str, replica: int, revision: int, changed: bool, created_ms: int, replaced_ms: int) -> Receipt:
    return Receipt(
        name=name,
        replica=replica,
        revision=revision,
        changed=changed,
        created_at=moment(created_ms),
        replaced_at=moment(replaced_ms),
    )
