"""PostgreSQL database for the store, shared by several service processes."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from sqlalchemy import URL, Connection, create_engine, event, func, select
from sqlalchemy.exc import SQLAlchemyError

from preshuffle.api.errors import StoreError
from preshuffle.api.store.database import Connections, cause
from preshuffle.api.store.migrate import version_of

ANSWER_S: Final = 10.0
"""Seconds in which the server must answer; it ends its own statements sooner."""
_SESSION: Final = (
    "-c statement_timeout=8000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=30000 "
    "-c synchronous_commit=on"
)
_CONNECT: Final = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
    "application_name": "preshuffle",
}
_SCHEMA_LOCK: Final = 0x7072_6573_6875_6601
_LEADER_LOCK: Final = _SCHEMA_LOCK + 1
_DISK_FULL: Final = "53100"


class PostgresDatabase:
    """PostgreSQL database; a commit returns once it is on disk."""

    def __init__(self, url: URL) -> None:
        """Connect and check the schema; change nothing.

        Raises:
            StoreError: the server does not answer, or the database belongs to something else.
        """
        self.name = URL.create("postgresql", host=url.host, port=url.port, database=url.database).render_as_string()
        # a value in the URL's query string wins over the default here
        defaults = {name: value for name, value in _CONNECT.items() if name not in url.query}
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=8,
            max_overflow=0,
            pool_timeout=5,
            pool_pre_ping=True,
            connect_args={"options": _SESSION, **defaults},
        )
        event.listen(engine, "do_connect", _connect)
        self._connections = Connections(engine)
        try:
            with self.begin() as connection:
                version_of(connection, self.name)
        except (SQLAlchemyError, StoreError) as error:
            self.close()
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{self.name} cannot be used: {cause(error)}; see --db") from None

    def missing_reason(self) -> str | None:
        """Return None: only a query can find out."""
        return None

    @contextmanager
    def begin(self, write: bool = False) -> Iterator[Connection]:
        """Return a transaction; writers serialise on the counter of changes, not here."""
        with self._connections.lend() as connection, connection.begin():
            yield connection

    def lock_schema(self, connection: Connection) -> None:
        """Take an advisory lock until the transaction ends.

        Service processes that start together upgrade one after the other.
        """
        connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))

    @contextmanager
    def leadership(self) -> Iterator[bool]:
        """Try to take the leader's advisory lock, released with the session."""
        try:
            with self._connections.lend() as connection:
                taken = bool(connection.execute(select(func.pg_try_advisory_lock(_LEADER_LOCK))).scalar())
                connection.commit()
                try:
                    yield taken
                finally:
                    connection.execute(select(func.pg_advisory_unlock_all()))
                    connection.commit()
        except SQLAlchemyError as error:
            raise StoreError(f"{self.name} does not answer: {cause(error)}") from None

    def is_full(self, error: SQLAlchemyError) -> bool:
        """Whether the server's disk is full."""
        return getattr(getattr(error, "orig", None), "sqlstate", None) == _DISK_FULL

    def shrink_journal(self) -> bool:
        """Return False: the server does that by itself."""
        return False

    def release_reserve(self) -> bool:
        """Return False: the server's disk is out of reach."""
        return False

    def keep_reserve(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close every connection."""
        self._connections.close()


class ImpatientConnection(psycopg.Connection[Any]):
    """Connection that closes itself if an answer takes longer than ``ANSWER_S``.

    A server that hangs, or a network that lost it, sends no error; neither TCP's timers nor the server's own help.
    """

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Wait for an answer, for a limited time.

        psycopg resumes the generator several times a second, whether or not there is one.
        """
        return super().wait(self._limited(gen), *args, **options)

    def _limited(self, answer: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        deadline = time.monotonic() + ANSWER_S
        ready = None
        while True:
            try:
                wanted = answer.send(ready)
            except StopIteration as end:
                return end.value
            ready = yield wanted
            if time.monotonic() > deadline:
                self.pgconn.finish()
                raise psycopg.OperationalError(f"no answer within {ANSWER_S:g} s")


def _connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> ImpatientConnection:
    return ImpatientConnection.connect(*arguments, **options)
