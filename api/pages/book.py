"""Pages of the book: sections, entries, earlier books and their differences.

An entry is shown as it was written; a layout is drawn, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import yaml
from anyio import to_thread
from fastapi import FastAPI, Query
from pydantic import Field
from starlette.responses import Response

from preshuffle.api.answers import Answers
from preshuffle.api.pages.layer_section import picture_of
from preshuffle.api.pages.render import Renderer
from preshuffle.api.routes import books
from preshuffle.api.store import Store, in_thread, stored_books
from preshuffle.api.web import Params, ProblemError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.kernels import BackendReader, LayoutReader
from preshuffle.registry.lint import known_backends, known_readers
from preshuffle.registry.loading import Book

_WORDS: Final = ("title", "because", "says", "meaning", "note", "pattern")
"""Fields that say in words what an entry is, the best first."""


class SectionParams(Params):
    """Query parameters of a section: which entries to list."""

    name: Annotated[str, Field(max_length=128, description="only those whose id or words have this in them")] = ""


def install(app: FastAPI, store: Store, answers: Answers, render: Renderer) -> None:
    """Add the pages."""

    @app.get("/book", include_in_schema=False)
    async def book() -> Response:
        stored = await in_thread(stored_books, store, answers.registry.digest)
        return render("book.html", place="book", stored=stored)

    @app.get("/book/diff", include_in_schema=False)
    async def diff(params: Annotated[books.DiffParams, Query()]) -> Response:
        found = await in_thread(books.changes_between, store, answers, params)
        return render("book_diff.html", place="book", diff=found)

    @app.get("/book/{section}", include_in_schema=False)
    async def section(section: str, params: Annotated[SectionParams, Query()]) -> Response:
        all_entries = _section(answers.registry.book, section)
        entries = [(id, about(entry)) for id, entry in all_entries.items()]
        found = [(id, text) for id, text in entries if params.name.lower() in f"{id} {text}".lower()]
        shown: dict[str, Any] = {"section": section, "entries": found, "all": len(all_entries), "name": params.name}
        return render("book_section.html", place="book", **shown)

    @app.get("/book/{section}/{id:path}", include_in_schema=False)
    async def entry(section: str, id: str) -> Response:
        return await to_thread.run_sync(_entry, answers.registry.book, render, section, id)


def about(entry: Frozen) -> str:
    """Return the title or description of an entry."""
    return next((str(text) for name in _WORDS if (text := getattr(entry, name, None))), "")


def _entry(book: Book, render: Renderer, section: str, id: str) -> Response:
    entry = _section(book, section).get(id)
    if entry is None:
        raise ProblemError("not-found", f"{section} of this book has no {id!r}")
    fields = entry.model_dump(mode="json", exclude_unset=True, exclude={"id"})
    place = book.place_of(section, id)
    return render(
        "book_entry.html",
        place="book",
        section=section,
        id=id,
        about=about(entry),
        text=yaml.safe_dump({id: fields}, sort_keys=False, allow_unicode=True, width=100),
        evidence=fields.get("evidence", []),
        where=str(place),
        uses=list(_uses(book, section, entry)),
        used_by=list(_used_by(book, section, id)),
        readers=_readers(book, section, entry),
        backends=_backends(book, section, entry),
        drawing=picture_of(book.layouts[id]) if section == "layouts" else None,
    )


def _section(book: Book, section: str) -> Mapping[str, Any]:
    if section not in book.entries:
        raise ProblemError("not-found", f"the book has no section {section!r}; valid: {', '.join(book.entries)}")
    return book.entries[section]


def _readers(book: Book, section: str, entry: Any) -> tuple[LayoutReader, ...] | None:
    """Return the kernel families that read a layout or packing.

    None for other entries.
    """
    if section not in ("layouts", "packings"):
        return None
    return known_readers(book, (entry.id, *getattr(entry, "aliases", ())))


def _backends(book: Book, section: str, entry: Any) -> tuple[BackendReader, ...]:
    """Return the backends whose own kernels read a layout; none for other entries."""
    return known_backends(book, (entry.id, *entry.aliases)) if section == "layouts" else ()


def _uses(book: Book, section: str, entry: Any) -> Iterator[tuple[str, str]]:
    """Yield section and id of each entry that this refers to."""
    if section == "rules" and entry.use is not None:
        yield "recipes", entry.use
    if section == "recipes":
        for layout in dict.fromkeys(book.layout(tensor.layout).id for tensor in entry.tensors.values()):
            yield "layouts", layout
        for feature in entry.requires.aiter:
            yield "features", feature


def _used_by(book: Book, section: str, id: str) -> Iterator[tuple[str, str]]:
    """Yield section and id of each entry that refers to this."""
    if section == "recipes":
        yield from (("rules", rule.id) for rule in book.rules.values() if rule.use == id)
    if section == "layouts":
        for recipe in book.recipes.values():
            if id in {book.layout(tensor.layout).id for tensor in recipe.tensors.values()}:
                yield "recipes", recipe.id
    if section == "features":
        yield from (("recipes", recipe.id) for recipe in book.recipes.values() if id in recipe.requires.aiter)
