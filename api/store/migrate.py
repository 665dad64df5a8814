"""Bring a store's schema up to what this version needs, in one transaction; refuse one that is newer."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from preshuffle.api.errors import StoreError
from preshuffle.api.store.schema import VERSION_TABLE, meta


@lru_cache(maxsize=1)
def steps() -> ScriptDirectory:
    """Return the migrations that this version knows."""
    folder = str(files("preshuffle.api") / "store" / "migrations")
    return ScriptDirectory(folder, version_locations=[folder])


def newest() -> str:
    """Return the schema that this version needs."""
    return str(steps().get_current_head())


def version_of(connection: Connection, name: str) -> str | None:
    """Return a store's schema; None where there is nothing yet. Nothing is written.

    Args:
        connection: to the database.
        name: of the store, for messages.

    Raises:
        StoreError: it is newer than this version, or a database of something else.
    """
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return None
    version = _context(connection).get_current_revision()
    if version is None and "meta" in tables:
        version = _before_versions(connection)
    if version is None:
        raise StoreError(
            f"{name} is a database of something else (tables: {', '.join(sorted(tables)[:5])}); it was left as it is. "
            "Name another one with --db"
        )
    known = [step.revision for step in steps().walk_revisions()]
    if version not in known:
        raise StoreError(
            f"{name} was written by a newer preshuffle (schema {version}; this one knows up to {newest()}); "
            "it was left as it is. Run that version, or name another store with --db"
        )
    return version


def upgrade(connection: Connection, name: str) -> None:
    """Take every step that is missing, inside the connection's transaction.

    Raises:
        StoreError: the store is newer, or a database of something else.
    """
    version = version_of(connection, name)
    context = _context(connection)
    with Operations.context(context):
        if version is not None and context.get_current_revision() is None:
            context.stamp(steps(), version)
        for step in reversed(list(steps().iterate_revisions("head", version or "base"))):
            step.module.upgrade()
            context.stamp(steps(), step.revision)


def _before_versions(connection: Connection) -> str | None:
    """The first schema said its version in ``meta``."""
    try:
        found = connection.execute(select(meta.c.value).where(meta.c.key == "schema_version")).scalar()
    except SQLAlchemyError:
        return None  # another program's table of that name
    return None if found is None else f"{found:04d}"


def _context(connection: Connection) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
