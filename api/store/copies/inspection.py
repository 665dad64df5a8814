"""What a store holds, read without changing it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from sqlalchemy import Connection, func, inspect, select, text

from preshuffle.api.errors import StoreError
from preshuffle.api.store.migrate import newest, version_of
from preshuffle.api.store.open import open_database
from preshuffle.api.store.schema import deployments, history, replicas
from preshuffle.api.store.sqlite import SqliteDatabase, read_only
from preshuffle.registry.base.frozen import Frozen


class StoreFacts(Frozen):
    """Version and content of a store."""

    store: str
    schema_version: str = Field(description="that it has")
    newest_version: str = Field(description="that this preshuffle writes")
    status: Literal["current", "older"] = Field(description="older: preshuffle serve migrates it at its start")
    deployments: int
    replicas: int
    history: int

    def named(self, name: str) -> StoreFacts:
        """Return the same facts of a file that got another name."""
        return self.model_copy(update={"store": name})


def inspect_store(url: str) -> StoreFacts:
    """Return what a store holds.

    A SQLite file is checked page by page.

    Raises:
        StoreError: there is no store, it is damaged, or a newer version wrote it.
    """
    database = open_database(url)
    try:
        missing = database.missing_reason()
        if missing:
            raise StoreError(missing)
        if isinstance(database, SqliteDatabase):
            with read_only(database.path) as connection:
                _check_pages(connection, database.name)
                return _facts(connection, database.name)
        with database.begin() as connection:
            return _facts(connection, database.name)
    finally:
        database.close()


def _facts(connection: Connection, name: str) -> StoreFacts:
    version = version_of(connection, name)
    if version is None:
        raise StoreError(f"{name} holds no store yet; preshuffle serve makes one")
    return StoreFacts(
        store=name,
        schema_version=version,
        newest_version=newest(),
        status="current" if version == newest() else "older",
        deployments=_rows(connection, deployments.name),
        replicas=_rows(connection, replicas.name),
        history=_rows(connection, history.name),
    )


def _check_pages(connection: Connection, name: str) -> None:
    found = connection.execute(text("PRAGMA integrity_check(1)")).scalar_one()
    if found != "ok":
        raise StoreError(f"{name} is damaged: {str(found).splitlines()[-1]}")


def _rows(connection: Connection, table: str) -> int:
    """Count a table's rows; none where an older schema has no such table."""
    if not inspect(connection).has_table(table):
        return 0
    number: int = connection.execute(select(func.count()).select_from(text(table))).scalar_one()
    return number
