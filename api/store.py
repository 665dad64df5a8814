"""The store of deployments. Calls block; the routes run them in threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from preshuffle.api.deployments import Deployment, Receipt, Replica, ReplicaReport
from preshuffle.api.errors import StoreError
from preshuffle.api.schema import deployments, meta, replicas
from preshuffle.api.sqlite import check_file, create_tables, database_path, open_engine

Precondition = Callable[[int | None], None]
"""Called with the revision that is stored (None: no such deployment); raises where the change must not happen."""


def _no_precondition(_revision: int | None) -> None:
    return


class Store:
    """Deployments in one SQLite file. Every change is one transaction; what is acknowledged survives a crash."""

    def __init__(self, url: str) -> None:
        """Look at the file without changing it; ``create`` makes it ready.

        Raises:
            StoreError: the URL or the file cannot be used.
        """
        self.path = database_path(url)
        check_file(self.path)
        self._engine = open_engine(self.path)

    def create(self) -> Store:
        """Create the file and its tables where they are missing.

        Raises:
            StoreError: the file cannot be written.
        """
        try:
            create_tables(self._engine)
        except SQLAlchemyError as error:
            self.close()
            raise StoreError(f"{self.path} cannot be used: {_cause(error)}; name another file with --db") from None
        return self

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def ping(self) -> None:
        """Read something.

        Raises:
            StoreError: the store does not answer.
        """
        with self._transaction() as connection:
            connection.execute(select(meta.c.value).where(meta.c.key == "schema_version")).one()

    def put(
        self, name: str, replica: int, report: ReplicaReport, precondition: Precondition = _no_precondition
    ) -> Receipt:
        """Store what a replica reports, in the place of what it reported before.

        The same report twice leaves revision and times alone, save that the replica was seen.

        Raises:
            StoreError: the store does not answer; nothing was changed.
        """
        text, now = report.canonical(), _now_ms()
        with self._transaction(write=True) as connection:
            stored = _deployment_row(connection, name)
            precondition(stored.revision if stored else None)
            mine = (replicas.c.name == name) & (replicas.c.replica == replica)
            before = connection.execute(select(replicas).where(mine)).one_or_none()
            if stored and before and before.report == text:
                connection.execute(update(replicas).where(mine).values(seen_ms=now))
                return _receipt(name, replica, stored.revision, False, before.created_ms, before.replaced_ms)
            revision = _next_revision(connection)
            changed = {"revision": revision, "replaced_ms": now}
            if stored:
                connection.execute(update(deployments).where(deployments.c.name == name).values(**changed))
            else:
                connection.execute(insert(deployments).values(name=name, created_ms=now, **changed))
            values = {"report": text, "replaced_ms": now, "seen_ms": now}
            if before:
                connection.execute(update(replicas).where(mine).values(**values))
            else:
                connection.execute(insert(replicas).values(name=name, replica=replica, created_ms=now, **values))
            return _receipt(name, replica, revision, True, before.created_ms if before else now, now)

    def get(self, name: str) -> Deployment | None:
        """Return a deployment with all its replicas.

        Raises:
            StoreError: the store does not answer.
        """
        with self._transaction() as connection:
            row = _deployment_row(connection, name)
            return _with_replicas(connection, [row])[0] if row else None

    def page(self, limit: int, after: str = "") -> tuple[list[Deployment], bool]:
        """Return up to ``limit`` deployments by name, those after a name, and whether there are more.

        Raises:
            StoreError: the store does not answer.
        """
        with self._transaction() as connection:
            names = select(deployments).where(deployments.c.name > after).order_by(deployments.c.name).limit(limit + 1)
            rows = connection.execute(names).all()
            return _with_replicas(connection, rows[:limit]), len(rows) > limit

    def delete(self, name: str, replica: int | None = None, precondition: Precondition = _no_precondition) -> bool:
        """Forget a deployment, or one replica of it (its last one takes the deployment along).

        Returns:
            Whether there was anything to forget.

        Raises:
            StoreError: the store does not answer; nothing was changed.
        """
        with self._transaction(write=True) as connection:
            stored = _deployment_row(connection, name)
            precondition(stored.revision if stored else None)
            if stored is None:
                return False
            gone = delete(replicas).where(replicas.c.name == name)
            if replica is not None:
                gone = gone.where(replicas.c.replica == replica)
            if connection.execute(gone).rowcount == 0:
                return False
            mine = deployments.c.name == name
            if connection.execute(select(replicas.c.replica).where(replicas.c.name == name).limit(1)).first() is None:
                connection.execute(delete(deployments).where(mine))
            else:
                changed = {"revision": _next_revision(connection), "replaced_ms": _now_ms()}
                connection.execute(update(deployments).where(mine).values(**changed))
            return True

    def transaction(self, write: bool = False) -> AbstractContextManager[Connection]:
        """Return a transaction for tables other than those of deployments; a writer must say so.

        Raises:
            StoreError: the store does not answer; nothing was changed.
        """
        return self._transaction(write)

    @contextmanager
    def _transaction(self, write: bool = False) -> Iterator[Connection]:
        if not self.path.exists():
            raise StoreError(f"{self.path} is gone: it was moved or deleted while the service ran; restart it")
        try:
            with self._engine.connect().execution_options(write=write) as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(f"{self.path} does not answer: {_cause(error)}") from error


def _deployment_row(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(deployments).where(deployments.c.name == name)).one_or_none()


def _with_replicas(connection: Connection, rows: Sequence[Row[Any]]) -> list[Deployment]:
    wanted = select(replicas).where(replicas.c.name.in_([row.name for row in rows])).order_by(replicas.c.replica)
    by_name: dict[str, list[Replica]] = {row.name: [] for row in rows}
    for row in connection.execute(wanted):
        by_name[row.name].append(
            Replica(
                replica=row.replica,
                report=ReplicaReport.model_validate_json(row.report),
                created_at=_time(row.created_ms),
                replaced_at=_time(row.replaced_ms),
                seen_at=_time(row.seen_ms),
            )
        )
    return [
        Deployment(
            name=row.name,
            revision=row.revision,
            created_at=_time(row.created_ms),
            replaced_at=_time(row.replaced_ms),
            replicas=tuple(by_name[row.name]),
        )
        for row in rows
    ]


def _next_revision(connection: Connection) -> int:
    mine = meta.c.key == "revision"
    connection.execute(update(meta).where(mine).values(value=meta.c.value + 1))
    revision: int = connection.execute(select(meta.c.value).where(mine)).scalar_one()
    return revision


def _receipt(name: str, replica: int, revision: int, changed: bool, created_ms: int, replaced_ms: int) -> Receipt:
    return Receipt(
        name=name,
        replica=replica,
        revision=revision,
        changed=changed,
        created_at=_time(created_ms),
        replaced_at=_time(replaced_ms),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _cause(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]
