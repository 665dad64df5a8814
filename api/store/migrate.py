"""Schema migrations of the store, in one transaction; newer schemas are refused."""

from __future__ import annotations

from importlib.resources import files

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from preshuffle.api.errors import StoreError
from preshuffle.api.store.schema import VERSION_TABLE, meta


def migrations() -> ScriptDirectory:
    """Return the migrations of this version."""
    folder = str(files("preshuffle.api") / "store" / "migrations")
    return ScriptDirectory(folder, version_locations=[folder])


def newest() -> str:
    """Return the schema version that this code needs."""
    return str(migrations().get_current_head())


def version_of(connection: Connection, name: str) -> str | None:
    """Return a database's schema version, or None if empty; write nothing.

    Args:
        connection: to the database.
        name: of the store, for messages.

    Raises:
        StoreError: it is newer than this code, or the database belongs to something else.
    """
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return None
    version = _context(connection).get_current_revision()
    if version is None and "meta" in tables:
        version = _before_versions(connection)
    if version is None:
        raise StoreError(
            f"{name} is a database of something else (tables: {', '.join(sorted(tables)[:5])}); it was left unchanged. "
            "Name another one with --db"
        )
    known = migrations()
    if version not in [step.revision for step in known.walk_revisions()]:
        raise StoreError(
            f"{name} was written by a newer preshuffle (schema {version}; "
            f"this one knows up to {known.get_current_head()}); it was left unchanged. "
            "Run that version, or name another store with --db"
        )
    return version


def upgrade(connection: Connection, name: str) -> None:
    """Apply all missing migrations in the connection's transaction.

    Raises:
        StoreError: the store is newer, or the database belongs to something else.
    """
    version = version_of(connection, name)
    context, steps = _context(connection), migrations()
    with Operations.context(context):
        if version is not None and context.get_current_revision() is None:
            context.stamp(steps, version)
        for step in reversed(list(steps.iterate_revisions("head", version or "base"))):
            step.module.upgrade()
            context.stamp(steps, step.revision)


def _before_versions(connection: Connection) -> str | None:
    """Read the version that the first schema had in ``meta``."""
    try:
        version = connection.execute(select(meta.c.value).where(meta.c.key == "schema_version")).scalar()
    except SQLAlchemyError:
        return None  # another program's table of that name
    return None if version is None else f"{version:04d}"


def _context(connection: Connection) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
