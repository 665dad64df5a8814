"""Open the store's database by URL."""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from preshuffle.api.errors import StoreError
from preshuffle.api.store.database import VALID, Database

_SECRET: Final = re.compile(r"(?<=//).*@|\?.*")


def open_database(url: str) -> Database:
    """Open a SQLite or PostgreSQL database by URL.

    Raises:
        StoreError: the URL is not supported, or the database cannot be used.
    """
    parsed = parsed_url(url)
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        try:
            from preshuffle.api.store.postgres import PostgresDatabase
        except ImportError:  # also where the driver finds no libpq
            shown = parsed.set(username=None, password=None, query={}).render_as_string()
            message = f"{shown} needs a driver that is not installed; pip install 'preshuffle[postgres]'"
            raise StoreError(message) from None
        return PostgresDatabase(parsed)
    if parsed.drivername == "sqlite":
        from preshuffle.api.store.sqlite import SqliteDatabase

        return SqliteDatabase(parsed)
    raise StoreError(f"--db {parsed.render_as_string(hide_password=True)} is not supported; {VALID}")


def parsed_url(url: str) -> URL:
    """Return a database URL by its parts.

    Raises:
        StoreError: it is none; what may be a password is left out.
    """
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        shown = _SECRET.sub("", url)
        raise StoreError(f"--db {shown!r} is not a database URL; {VALID}") from None
