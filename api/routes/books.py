"""``/v1/registry/books``: books that the service has run, and their differences."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from preshuffle.api.answers import Answers
from preshuffle.api.rollout import BookChanges, compare_entries
from preshuffle.api.store import BookEntries, KeptBooks, Store, entries_of, in_thread, stored_books, stored_entries
from preshuffle.api.web import Params, ProblemError, problems

TAGS: Final[list[str | Enum]] = ["registry"]
CURRENT: Final = "current"
Which = Annotated[str, Field(pattern=rf"^(sha256:[0-9a-f]{{64}}|{CURRENT})$")]


class DiffParams(Params):
    """Two books to compare."""

    before: Which = Field(alias="from", description="a digest, or current")
    after: Which = Field(default=CURRENT, alias="to", description="a digest, or current")


def router(store: Store, answers: Answers) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    @routes.get(
        "/v1/registry/books",
        tags=TAGS,
        operation_id="books",
        summary="Every book that the service has run, the latest first",
        response_model=KeptBooks,
        responses=problems("store-unavailable"),
    )
    async def listing() -> Response:
        found = await in_thread(stored_books, store, answers.registry.digest)
        return Response(found.model_dump_json(), media_type="application/json")

    @routes.get(
        "/v1/registry/diff",
        tags=TAGS,
        operation_id="book_diff",
        summary="The differences between two books",
        response_model=BookChanges,
        responses=problems("invalid-input", "unknown-book", "store-unavailable"),
    )
    async def diff(params: Annotated[DiffParams, Query()]) -> Response:
        found = await in_thread(changes_between, store, answers, params)
        return Response(found.model_dump_json(), media_type="application/json")

    return routes


def changes_between(store: Store, answers: Answers, params: DiffParams) -> BookChanges:
    """Return the differences between two books.

    Raises:
        ProblemError: one of them is not known here.
        StoreError: the store does not answer.
    """
    (before, old), (after, new) = (_entries(store, answers, which) for which in (params.before, params.after))
    return BookChanges(before=before, after=after, changes=compare_entries(old, new))


def _entries(store: Store, answers: Answers, which: str) -> tuple[str, BookEntries]:
    book = answers.registry.book
    if which in (CURRENT, book.digest):
        return book.digest, entries_of(book)
    found = stored_entries(store, which)
    if found is None:
        raise ProblemError(
            "unknown-book", f"no book {which} is known here; GET /v1/registry/books lists the known ones"
        )
    return which, found
