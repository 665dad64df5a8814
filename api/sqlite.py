"""A SQLite file as the store: what is accepted, and how it is opened so that a written answer is on disk."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from preshuffle.api.errors import StoreError
from preshuffle.api.schema import SCHEMA_VERSION, metadata

VALID: Final = "valid: sqlite:///PATH, as in sqlite:///preshuffle.db or sqlite:////var/lib/preshuffle/store.db"
_MAGIC: Final = b"SQLite format 3\x00"
BUSY_MS: Final = 5000


def database_path(url: str) -> Path:
    """Return the file that a store's URL means.

    Raises:
        StoreError: not a URL of a SQLite file.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError(f"--db {url!r} is not a database URL; {VALID}") from None
    if parsed.drivername != "sqlite" or parsed.host or parsed.query:
        shown = parsed.render_as_string(hide_password=True)
        raise StoreError(f"--db {shown} is not a SQLite file; {VALID}")
    if not parsed.database or parsed.database == ":memory:":
        raise StoreError(f"--db {url} names no file, so nothing would survive a restart; {VALID}")
    return Path(parsed.database)


def check_file(path: Path) -> None:
    """Make sure that a file is a store of ours or can become one. Nothing is written.

    Raises:
        StoreError: names the file and what is wrong with it.
    """
    if not path.parent.is_dir():
        raise StoreError(f"{path}: the folder {path.parent} does not exist; create it, or name another file with --db")
    if path.is_dir():
        raise StoreError(f"{path} is a folder; name a file with --db")
    try:
        if not path.exists() or path.stat().st_size == 0:
            return
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    if start != _MAGIC:
        raise StoreError(f"{path} is not a SQLite database; it was left as it is. Name another file with --db")
    _check_tables(path)


def _check_tables(path: Path) -> None:
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_MS / 1000)
        try:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            row = None
            if "meta" in names:
                row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(f"{path} is damaged or not a store of preshuffle: {error}; it was left as it is") from None
    if names and row is None:
        raise StoreError(
            f"{path} is a database of something else (tables: {', '.join(sorted(names)[:5])}); it was left as it is. "
            "Name another file with --db"
        )
    if row is not None and row[0] != SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by another preshuffle (schema {row[0]}; this one knows {SCHEMA_VERSION}); "
            "it was left as it is. Run the version that wrote it, or name another file with --db"
        )


def open_engine(path: Path) -> Engine:
    """Return an engine on the file. A commit returns when the bytes are on disk (WAL, ``synchronous=FULL``)."""
    engine = create_engine(f"sqlite:///{path}", pool_size=8, max_overflow=0, connect_args={"timeout": BUSY_MS / 1000})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def create_tables(engine: Engine) -> None:
    """Create what is not there yet, all or nothing."""
    with engine.connect().execution_options(write=True) as connection, connection.begin():
        metadata.create_all(connection)
        for key, value in (("schema_version", SCHEMA_VERSION), ("revision", 0)):
            connection.exec_driver_sql("INSERT OR IGNORE INTO meta (key, value) VALUES (?, ?)", (key, value))


def _prepare(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    """A writer takes the lock at once: upgrading a reader's lock can fail however long one waits."""
    write = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
