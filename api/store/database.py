"""The databases that a store can lie in: what each must be able to do, and which one a URL means."""

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
    """Where the store's tables lie. Making one looks at the database and changes nothing."""

    @property
    def name(self) -> str:
        """What messages call it; holds no secret."""

    def missing_reason(self) -> str | None:
        """Say why nothing can be asked at all, where that is known without asking."""

    def begin(self, write: bool = False) -> AbstractContextManager[Connection]:
        """Return a transaction, committed at its end; a writer must say so."""

    def lock_schema(self, connection: Connection) -> None:
        """Wait inside a transaction until nobody else changes the schema."""

    def leadership(self) -> AbstractContextManager[bool]:
        """Say whether this process may do what only one of several should do at a time."""

    def is_full(self, error: SQLAlchemyError) -> bool:
        """Whether an error means that the disk is full."""

    def close(self) -> None:
        """Close every connection."""


def cause(error: SQLAlchemyError) -> str:
    """Return the first line of what the database itself said."""
    lines = str(getattr(error, "orig", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__
