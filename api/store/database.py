"""Interface of the databases that can hold the store, and their connections."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final, Protocol, TypeVar, TypeVarTuple, Unpack

from anyio import CapacityLimiter, fail_after, to_thread
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from preshuffle.api.errors import StoreError, StoreFullError

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

VALID: Final = (
    "valid: sqlite:///PATH, as in sqlite:///preshuffle.db or sqlite:////var/lib/preshuffle/store.db, "
    "or postgresql://USER:PASSWORD@HOST/DATABASE"
)

_THREADS: Final = CapacityLimiter(16)
"""Threads of their own: where the database hangs, whatever needs none goes on."""
_QUEUE_S: Final = 10.0


async def in_thread(function: Callable[[Unpack[Arguments]], Result], *arguments: *Arguments) -> Result:
    """Call a function that uses the store in a worker thread.

    Raises:
        StoreError: all of them wait for the database, or as the function says.
    """
    try:
        with fail_after(_QUEUE_S):
            return await to_thread.run_sync(function, *arguments, limiter=_THREADS)
    except TimeoutError:
        raise StoreError(f"the store does not answer: others have waited for it for {_QUEUE_S:g} s") from None


class Database(Protocol):
    """Database of the store's tables; constructing one changes nothing."""

    @property
    def name(self) -> str:
        """Name for messages, without secrets."""

    def missing_reason(self) -> str | None:
        """Return why the database is missing or replaced, without a query."""

    def begin(self, write: bool = False) -> AbstractContextManager[Connection]:
        """Return a transaction, committed at its end; writers pass ``write=True``."""

    def lock_schema(self, connection: Connection) -> None:
        """Lock the schema until the transaction ends."""

    def leadership(self) -> AbstractContextManager[bool]:
        """Try to become leader: one process of several, until the context ends."""

    def is_full(self, error: SQLAlchemyError) -> bool:
        """Whether an error means that the disk is full."""

    def shrink_journal(self) -> bool:
        """Free disk space of the journal; return whether there was any."""

    def release_reserve(self) -> bool:
        """Free the disk space reserved for deletions; whether there was any."""

    def keep_reserve(self) -> None:
        """Reserve disk space for deletions, unless that has been done."""

    def close(self) -> None:
        """Close every connection."""


class Connections:
    """Connections of a database, each lent to one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        """Open none yet.

        Args:
            engine: makes them and keeps the idle ones; it must not refer to this object.
        """
        self._engine = engine
        self._closed = False
        # Whoever drops a store unclosed leaves no connection to the garbage collector. At exit the system closes them:
        # a forked child must not end its parent's sessions.
        weakref.finalize(self, engine.dispose).atexit = False

    @contextmanager
    def lend(self, **options: bool) -> Iterator[Connection]:
        """Return a connection, with SQLAlchemy's execution options, until the context ends."""
        try:
            with self._engine.connect().execution_options(**options) as connection:
                yield connection
        finally:
            if self._closed:  # while it was in use
                self._engine.pool.dispose()

    def close(self) -> None:
        """Close all connections: idle ones now, others when they come back."""
        self._closed = True
        self._engine.pool.dispose()


def cause(error: SQLAlchemyError) -> str:
    """Return the first line of the database's own message."""
    lines = str(getattr(error, "orig", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__


def repeat_when_full(database: Database, change: Callable[[], Result], may_use_reserve: bool = False) -> Result:
    """Make a change; on a full disk, make room and repeat.

    Raises:
        StoreFullError: there is no room, even so; nothing was changed.
    """
    try:
        return change()
    except StoreFullError:
        if database.shrink_journal():
            with suppress(StoreFullError):
                return change()
        if not (may_use_reserve and database.release_reserve()):
            raise
    try:
        return change()
    finally:
        database.keep_reserve()
