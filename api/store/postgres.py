"""PostgreSQL database for the store, shared by several service processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import URL, Connection, create_engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from preshuffle.api.errors import StoreError
from preshuffle.api.store.database import cause
from preshuffle.api.store.migrate import version_of

_SESSION: Final = (
    "-c statement_timeout=15000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=30000 "
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
            StoreError: the driver is missing, the server does not answer, or the database belongs to something else.
        """
        self.name = URL.create("postgresql", host=url.host, port=url.port, database=url.database).render_as_string()
        try:
            import psycopg  # noqa: F401
        except ModuleNotFoundError:
            message = f"{self.name} needs a driver that is not installed; pip install 'preshuffle[postgres]'"
            raise StoreError(message) from None
        # a value in the URL's query string wins over the default here
        defaults = {name: value for name, value in _CONNECT.items() if name not in url.query}
        self._engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=8,
            max_overflow=0,
            pool_timeout=10,
            pool_pre_ping=True,
            connect_args={"options": _SESSION, **defaults},
        )
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
        with self._engine.connect() as connection, connection.begin():
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
            with self._engine.connect() as connection:
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

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()
