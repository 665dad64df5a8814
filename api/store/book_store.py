"""Every book that the service has run, by digest, and which registry answers now."""

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
"""The subject of history under which changes of the registry stand; no deployment's history is mixed up with it,
since its rows have the action ``book``."""
BookEntries = Mapping[str, Mapping[str, Any]]


class KeptBook(Frozen):
    """A book that the service has run."""

    digest: str
    sources: tuple[str, ...] = Field(description="its files, later ones on top")
    first_at: datetime = Field(description="when the service first ran it")
    last_at: datetime = Field(description="when the service last began to run it")


class KeptBooks(Frozen):
    """All books that the service has run, the latest first."""

    current: str
    books: tuple[KeptBook, ...]


def entries_of(book: Book) -> dict[str, dict[str, Any]]:
    """Return a book's entries by section and id, as JSON."""
    return {
        section: {id: entry.model_dump(mode="json") for id, entry in entries.items()}
        for section, entries in book.entries.items()
    }


def announce(store: Store, registry: Registry) -> None:
    """Keep the registry's book, and say that this registry answers from now on.

    Raises:
        StoreError: the store does not answer; nothing was changed.
    """
    book, name, now = registry.book, judge_name(registry), now_ms()
    with store.changing("changes") as connection:
        known = books.c.digest == book.digest
        if connection.execute(update(books).where(known).values(last_ms=now)).rowcount == 0:
            body = zlib.compress(json.dumps(entries_of(book), sort_keys=True).encode())
            sources = json.dumps(book.sources)
            values = {"digest": book.digest, "body": body, "sources": sources, "first_ms": now, "last_ms": now}
            connection.execute(insert(books).values(**values))
        before = connection.execute(_announced()).scalar()
        if before != name:
            change = FieldChange(field="registry", before=before, after=name)
            record(connection, now, [HistoryEntry(SERVICE, "book", REGISTRY_SUBJECT, registry=name, changes=[change])])


def announced_name(store: Store) -> str | None:
    """Return the name (see ``judge_name``) of the registry that was announced last, by whatever process.

    Raises:
        StoreError: the store does not answer.
    """
    with store.transaction() as connection:
        found: str | None = connection.execute(_announced()).scalar()
        return found


def stored_books(store: Store, current: str) -> KeptBooks:
    """Return all books.

    Raises:
        StoreError: the store does not answer.
    """
    columns = (books.c.digest, books.c.sources, books.c.first_ms, books.c.last_ms)
    with store.transaction() as connection:
        rows = connection.execute(select(*columns).order_by(books.c.last_ms.desc(), books.c.digest)).all()
    found = [
        KeptBook(
            digest=row.digest,
            sources=tuple(json.loads(row.sources)),
            first_at=moment(row.first_ms),
            last_at=moment(row.last_ms),
        )
        for row in rows
    ]
    return KeptBooks(current=current, books=tuple(found))


def stored_entries(store: Store, digest: str) -> BookEntries | None:
    """Return a kept book's entries by section and id, as JSON; None where there is no such book.

    Raises:
        StoreError: the store does not answer.
    """
    with store.transaction() as connection:
        body = connection.execute(select(books.c.body).where(books.c.digest == digest)).scalar()
    if body is None:
        return None
    found: BookEntries = json.loads(zlib.decompress(body))
    return found


def announced_registry(store: Store) -> Registry:
    """Return the registry that the service on this store answers from; the packaged book where it never said so.

    Kernel tables that the service was started with are not in the store, so none of those are there.

    Raises:
        StoreError: the store does not answer, or the book is of a version that this one cannot read.
    """
    digest = (announced_name(store) or "").partition("+")[0]
    entries = stored_entries(store, digest) if digest else None
    if entries is None or digest == Registry.default().digest:
        return Registry.default()
    try:
        read = {
            section: {id: model.model_validate(entry) for id, entry in entries[section].items()}
            for section, model in SECTIONS.items()
        }
    except (KeyError, ValidationError):
        text = f"{store.name}: the book {digest[:19]} was written by another version of preshuffle; ask with --server"
        raise StoreError(text) from None
    return Registry(Book(read, {}))


def _announced() -> Any:
    mine = (history.c.subject == REGISTRY_SUBJECT) & (history.c.action == "book")
    return select(history.c.registry).where(mine).order_by(history.c.id.desc()).limit(1)
