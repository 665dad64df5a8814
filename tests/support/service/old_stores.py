"""Stores as earlier versions left them, made by the migrations themselves."""

from __future__ import annotations

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text

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
