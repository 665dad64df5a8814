"""Stores as earlier versions left them, made by the migrations themselves."""

from __future__ import annotations

from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, create_engine, insert, text

from preshuffle.api.store.migrate import migrations
from preshuffle.api.store.schema import VERSION_TABLE
from support.service.stores import report

VERSIONS = tuple(step.revision for step in reversed(list(migrations().walk_revisions())))
"""Schema versions, the first one first."""
NAME = "kept"


def make_store(url: str, version: str) -> None:
    """Make a store of a schema version, with one deployment of two replicas."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        steps = migrations()
        with Operations.context(context):
            for step in reversed(list(steps.iterate_revisions(version, "base"))):
                if step.revision == VERSIONS[1]:
                    _fill(connection)
                step.module.upgrade()
                context.stamp(steps, step.revision)
        if version == VERSIONS[0]:
            _fill(connection)
    engine.dispose()


def _fill(connection: Connection) -> None:
    """Put a deployment into a store of the first version; later steps have to carry it along."""
    values = {"name": NAME, "report": report().canonical(), "at": 1_234_567_890_123}
    connection.execute(text("INSERT INTO deployments VALUES (:name, 7, :at, :at)"), values)
    for replica in (0, 3):
        row = text("INSERT INTO replicas VALUES (:name, :replica, :report, :at, :at, :at)")
        connection.execute(row, {**values, "replica": replica})
    connection.execute(text("UPDATE meta SET value = 7 WHERE key = 'revision'"))


def old_store(url: str, version: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Make a database as an older version left it.

    Args:
        url: of an empty database.
        version: of its schema, such as ``0004``.
        rows: by table.
    """
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        steps = migrations()
        with Operations.context(context):
            for step in reversed(list(steps.iterate_revisions(version, "base"))):
                step.module.upgrade()
                context.stamp(steps, step.revision)
        tables = MetaData()
        tables.reflect(connection)
        for name, values in rows.items():
            connection.execute(insert(tables.tables[name]), values)
    engine.dispose()
