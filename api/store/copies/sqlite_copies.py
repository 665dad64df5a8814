"""Backup and restore of a SQLite store, by SQLite's own backup API."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL

from preshuffle.api.errors import StoreError
from preshuffle.api.store.copies.inspection import StoreFacts, inspect_store
from preshuffle.api.store.open import parsed_url

_BUSY_S: Final = 5.0
_USED_S: Final = 0.5
"""Seconds to wait for a file that a service has open; it will not close it."""
_JOURNALS: Final = ("-wal", "-shm")
PARTIAL: Final = ".partial"
REPLACED: Final = ".replaced"


def back_up(url: str, target: Path) -> StoreFacts:
    """Copy a store while services use it; return the copy's content.

    The copy is the store as it was at one moment, checked and on disk before it gets its name.

    Raises:
        StoreError: the store is none of SQLite's, the target exists or cannot be written, or the copy is damaged.
    """
    source = sqlite_file(url, f"pg_dump --format=custom --file {target}")
    inspect_store(url)
    if target.exists():
        raise StoreError(f"{target} exists already; name a new file")
    partial = target.with_name(target.name + PARTIAL)
    with _telling(target):
        _copy(source, partial)
        facts = inspect_store(url_of_file(partial))
        partial.rename(target)
        _sync(target.parent)
    return facts.named(str(target))


def restore_backup(url: str, backup: Path) -> tuple[StoreFacts, Path | None]:
    """Replace a store by a backup.

    Returns:
        What it holds now, and where the one before is kept.

    Raises:
        StoreError: a service uses the store, or the backup is none or was written by a newer version.
    """
    target = sqlite_file(url, "pg_restore, as docs/backup.md describes")
    kept = target.with_name(target.name + REPLACED)
    inspect_store(url_of_file(backup))
    if kept.exists():
        raise StoreError(f"{kept} exists already: the store that was replaced last; move it away first")
    partial = target.with_name(target.name + PARTIAL)
    with _telling(target):
        _copy(backup, partial)
        replaced = target.exists()
        if replaced:
            _settle(target)
            target.rename(kept)
        for journal in _JOURNALS:  # of a damaged file; they must not be applied to the new one
            target.with_name(target.name + journal).unlink(missing_ok=True)
        partial.rename(target)
        _sync(target.parent)
    return inspect_store(url), kept if replaced else None


def sqlite_file(url: str, instead: str) -> Path:
    """Return the file of a SQLite URL.

    Raises:
        StoreError: it is another database's; ``instead`` is the command for PostgreSQL.
    """
    parsed = parsed_url(url)
    if parsed.drivername != "sqlite" or not parsed.database:
        shown = URL.create(parsed.drivername, host=parsed.host, port=parsed.port, database=parsed.database)
        raise StoreError(f"{shown.render_as_string()} is no SQLite file; PostgreSQL has its own command: {instead}")
    return Path(parsed.database)


def url_of_file(file: Path) -> str:
    """Return the URL of a SQLite file of any name."""
    return URL.create("sqlite", database=str(file)).render_as_string()


def _copy(source: Path, target: Path) -> None:
    """Copy all pages in one read transaction; writers are not held up."""
    for leftover in (target, *(target.with_name(target.name + journal) for journal in _JOURNALS)):
        leftover.unlink(missing_ok=True)
    read_only = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(read_only, uri=True, timeout=_BUSY_S)) as reading:
        with closing(sqlite3.connect(target)) as writing:
            reading.backup(writing)
            writing.execute("PRAGMA journal_mode=DELETE")  # one file, without journals beside it
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _settle(file: Path) -> None:
    """Move the journal into the file, if no other process has it open.

    Raises:
        StoreError: one has.
    """
    with closing(sqlite3.connect(file, timeout=_USED_S, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.DatabaseError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise StoreError(f"{file} is in use by a service; stop it first") from None
            # a damaged file is replaced as it is


@contextmanager
def _telling(target: Path) -> Iterator[None]:
    """Name the file in errors, and leave no half of one.

    Raises:
        StoreError: the system or SQLite refused something in the block.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{target} cannot be written: {error}") from None
    finally:
        target.with_name(target.name + PARTIAL).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Put a renamed file's name on disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
