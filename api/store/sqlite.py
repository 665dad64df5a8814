"""SQLite file for the store, opened so that commits are durable."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from preshuffle.api.errors import StoreError
from preshuffle.api.store.database import VALID, Connections, cause
from preshuffle.api.store.migrate import version_of

_MAGIC: Final = b"SQLite format 3\x00"
BUSY_MS: Final = 5000
_RESERVE: Final = 8 << 20
"""Bytes that are set aside: twice as many as the journal usually has."""

log = logging.getLogger("preshuffle.api")


class SqliteDatabase:
    """SQLite file; a commit returns once it is on disk.

    It runs in WAL mode with ``synchronous=FULL``.
    """

    def __init__(self, url: URL) -> None:
        """Check the file; change nothing.

        Raises:
            StoreError: names the file and what is wrong with it.
        """
        self.path = _path(url)
        exists = _check_file(self.path)
        file = URL.create("sqlite", database=str(self.path))  # its name may have any characters
        engine = create_engine(file, pool_size=8, max_overflow=0, connect_args={"timeout": BUSY_MS / 1000})
        self._reserve = self.path.with_name(f"{self.path.name}-reserve")
        self._keeps_reserve = False
        self._opened = _OpenedFile(self.path)
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "connect", self._opened.note)
        event.listen(engine, "begin", _begin)
        self._connections = Connections(engine)
        if exists:
            _check_tables(self.path)

    @property
    def name(self) -> str:
        """Path of the file."""
        return str(self.path)

    def missing_reason(self) -> str | None:
        """Return a message if the file was deleted or replaced.

        SQLite would go on with the unlinked file, which nobody else can see. Its number cannot belong to another file
        meanwhile, since a connection of the pool has it open.
        """
        try:
            found = _identity(self.path)
        except OSError:
            return f"{self.path} does not exist: never created, or moved or deleted while the service ran"
        if self._opened.identity in (None, found):
            return None
        return (
            f"{self.path} was replaced by another file while the service ran; nothing is read or written until the "
            "service is restarted, which takes the new file, or the old one is moved back"
        )

    @contextmanager
    def begin(self, write: bool = False) -> Iterator[Connection]:
        """Return a transaction; a writer takes the lock at its start."""
        with self._connections.lend(write=write) as connection, connection.begin():
            yield connection

    def lock_schema(self, connection: Connection) -> None:
        """Do nothing: a writer has exclusive access to the file."""

    @contextmanager
    def leadership(self) -> Iterator[bool]:
        """Return True: a file serves one process."""
        yield True

    def is_full(self, error: SQLAlchemyError) -> bool:
        """Whether SQLite could not extend the file."""
        code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
        return code == sqlite3.SQLITE_FULL

    def shrink_journal(self) -> bool:
        """Checkpoint and truncate the journal; return whether that freed space."""
        journal = self.path.with_name(f"{self.path.name}-wal")
        try:
            before = journal.stat().st_size
            with self._connections.lend() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            return journal.stat().st_size < before
        except (OSError, SQLAlchemyError):  # the database cannot grow
            return False

    def release_reserve(self) -> bool:
        """Delete the reserve file; return whether there was one."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    def keep_reserve(self) -> None:
        """Set disk space aside, in a file beside the database.

        A change that only deletes needs space too, for its journal. What the journal takes is given back first.
        """
        self._keeps_reserve = True
        if self._reserve.exists():
            return
        try:
            self.shrink_journal()
            disk = os.statvfs(self.path.parent)
            size = min(_RESERVE, disk.f_bavail * disk.f_frsize // 4)
            with self._reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
        except OSError as error:
            log.warning("no disk space could be set aside beside %s: %s", self.path, error)
            self.release_reserve()

    def close(self) -> None:
        """Close every connection."""
        self._connections.close()
        if self._keeps_reserve:
            self.release_reserve()


class _OpenedFile:
    """Which file a path named when it was first opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.identity: tuple[int, int] | None = None

    def note(self, _connection: Any, _record: Any) -> None:
        """Remember the file, if it is the first."""
        if self.identity is None:
            self.identity = _identity(self._path)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _path(url: URL) -> Path:
    if url.host or url.query:
        raise StoreError(f"--db {url.render_as_string(hide_password=True)} is not a SQLite file; {VALID}")
    if not url.database or url.database == ":memory:":
        shown = url.render_as_string(hide_password=True)
        raise StoreError(f"--db {shown} names no file, so data would not survive a restart; {VALID}")
    return Path(url.database)


def _check_file(path: Path) -> bool:
    """Return whether a database exists; raise if none can."""
    if not path.parent.is_dir():
        raise StoreError(f"{path}: the folder {path.parent} does not exist; create it, or name another file with --db")
    if path.is_dir():
        raise StoreError(f"{path} is a folder; name a file with --db")
    try:
        if not path.exists() or path.stat().st_size == 0:
            return False
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    if start != _MAGIC:
        raise StoreError(f"{path} is not a SQLite database; it was left unchanged. Name another file with --db")
    return True


def _check_tables(path: Path) -> None:
    """Read the schema's version."""
    with read_only(path) as connection:
        version_of(connection, str(path))


@contextmanager
def read_only(path: Path) -> Iterator[Connection]:
    """Connect to a file without the right to write.

    Raises:
        StoreError: it is damaged, or its journal cannot be read without rights that this process lacks.
    """

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_MS / 1000)

    engine = create_engine("sqlite://", creator=connect)
    try:
        with engine.connect() as connection:
            yield connection
    except DatabaseError as error:
        if "readonly database" in str(error) or not os.access(path, os.W_OK):
            text = f"{path} cannot be written: permission denied for it, or for its folder ({path.parent})"
            raise StoreError(text) from None
        message = f"{path} is damaged or not a store of preshuffle: {cause(error)}; it was left unchanged"
        raise StoreError(message) from None
    finally:
        engine.dispose()


def _prepare(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # _begin starts transactions, not the driver
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    """Begin a transaction; writers lock at once.

    Upgrading a reader's lock can fail however long one waits.
    """
    write = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
