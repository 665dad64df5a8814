"""Interface of the databases that can hold the store."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final, Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

VALID: Final = (
    "valid: sqlite:///PATH, as in sqlite:///preshuffle.db or sqlite:////var/lib/preshuffle/store.db, "
    "or postgresql://USER:PASSWORD@HOST/DATABASE"
)


class Database(Protocol):
    """Database of the store's tables; constructing one changes nothing."""

    @property
    def name(self) -> str:
        """Name for messages, without secrets."""

    def missing_reason(self) -> str | None:
        """Return why the database is missing, if known without a query."""

    def begin(self, write: bool = False) -> AbstractContextManager[Connection]:
        """Return a transaction, committed at its end; writers pass ``write=True``."""

    def lock_schema(self, connection: Connection) -> None:
        """Lock the schema until the transaction ends."""

    def leadership(self) -> AbstractContextManager[bool]:
        """Try to become leader: one process of several, until the context ends."""

    def is_full(self, error: SQLAlchemyError) -> bool:
        """Whether an error means that the disk is full."""

    def close(self) -> None:
        """Close every connection."""


def cause(error: SQLAlchemyError) -> str:
    """Return the first line of the database's own message."""
    lines = str(getattr(error, "orig", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__
