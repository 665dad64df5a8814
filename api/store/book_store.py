"""Books that the service has run, and which registry answers now."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from pydantic import Field, ValidationError
from sqlalchemy import insert, select, update

from preshuffle.api.errors import StoreError
from preshuffle.api.fleet import judge_name
from preshuffle.api.store.history import SERVICE, FieldChange, HistoryEntry, record
from preshuffle.api.store.rows import moment, now_ms
from preshuffle.api.store.schema import books, history
from preshuffle.api.store.store import Store
from preshuffle.registry import Registry
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.loading import SECTIONS, Book

REGISTRY_SUBJECT: Final = "registry"
"""Subject of registry changes in the history.

A deployment of that name is not mixed up with it: rows of the registry have the action ``book``.
"""
BookEntries = Mapping[str, Mapping[str, Any]]


class KeptBook(Frozen):
    """Metadata of a book that the service has run."""

    digest: str
    sources: tuple[str, ...] = Field(description="its files, later ones on top")
    first_at: datetime = Field(description="when the service first ran it")
    last_at: datetime = Field(description="when the service last began to run it")


class KeptBooks(Frozen):
    """Books that the service has run, the latest first."""

    current: str
    books: tuple[KeptBook, ...]


def entries_of(book: Book) -> dict[str, dict[str, Any]]:
    """Return a book's entries by section and id, as JSON."""
    return {
        section: {id: entry.model_dump(mode="json") for id, entry in entries.items()}
        for section, entries in book.entries.items()
    }


def announce(store: Store, registry: Registry) -> None:
    """Store the registry's book and record that this registry answers now.

    Raises:
        StoreError: the store does not answer; nothing was changed.
    """
    book, name, now = registry.book, judge_name(registry), now_ms()
    with store.changing("changes") as connection:
        same_book = books.c.digest == book.digest
        if connection.execute(update(books).where(same_book).values(last_ms=now)).rowcount == 0:
            body = zlib.compress(json.dumps(entries_of(book), sort_keys=True).encode())
            sources = json.dumps(book.sources)
            values = {"digest": book.digest, "body": body, "sources": sources, "first_ms": now, "last_ms": now}
            connection.execute(insert(books).values(**values))
        before = connection.execute(_announced()).scalar()
        if before != name:
            change = FieldChange(field="registry", before=before, after=name)
            record(connection, now, [HistoryEntry(SERVICE, "book", REGISTRY_SUBJECT, registry=name, changes=[change])])


def announced_name(store: Store) -> str | None:
    """Return the last announced registry's name, by any process.

    See ``judge_name``.

    Raises:
        StoreError: the store does not answer.
    """
    with store.transaction() as connection:
        name: str | None = connection.execute(_announced()).scalar()
        return name


def stored_books(store: Store, current: str) -> KeptBooks:
    """Return metadata of all stored books.

    Raises:
        StoreError: the store does not answer.
    """
    columns = (books.c.digest, books.c.sources, books.c.first_ms, books.c.last_ms)
    with store.transaction() as connection:
        rows = connection.execute(select(*columns).order_by(books.c.last_ms.desc(), books.c.digest)).all()
    stored = [
        KeptBook(
            digest=row.digest,
            sources=tuple(json.loads(row.sources)),
            first_at=moment(row.first_ms),
            last_at=moment(row.last_ms),
        )
        for row in rows
    ]
    return KeptBooks(current=current, books=tuple(stored))


def stored_entries(store: Store, digest: str) -> BookEntries | None:
    """Return a stored book's entries as JSON; None for unknown digests.

    Raises:
        StoreError: the store does not answer.
    """
    with store.transaction() as connection:
        body = connection.execute(select(books.c.body).where(books.c.digest == digest)).scalar()
    if body is None:
        return None
    entries: BookEntries = json.loads(zlib.decompress(body))
    return entries


def announced_registry(store: Store) -> Registry:
    """Return the registry last announced, or the packaged one.

    It has no kernel tables: those that the service was started with are not in the store.

    Raises:
        StoreError: the store does not answer, or the book is of a version that this one cannot read.
    """
    digest = (announced_name(store) or "").partition("+")[0]
    entries = stored_entries(store, digest) if digest else None
    if entries is None or digest == Registry.default().digest:
        return Registry.default()
    try:
        sections = {
            section: {id: model.model_validate(entry) for id, entry in entries[section].items()}
            for section, model in SECTIONS.items()
        }
    except (KeyError, ValidationError):
        message = f"{store.name}: another version of preshuffle wrote the book {digest[:19]}; use --server instead"
        raise StoreError(message) from None
    return Registry(Book(sections, {}))


def _announced() -> Any:
    registry_changes = (history.c.subject == REGISTRY_SUBJECT) & (history.c.action == "book")
    return select(history.c.registry).where(registry_changes).order_by(history.c.id.desc()).limit(1)
