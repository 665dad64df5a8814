"""Comparison of observed tensor layouts with those of the current decision.

It compares; judging is the check's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.words import Role
from preshuffle.registry.values.observation import TensorObservation

if TYPE_CHECKING:
    from preshuffle.registry.loading import Book
    from preshuffle.registry.values.decision import TensorDecision


class LayoutComparison(Frozen):
    """Applied and decided layout of one tensor; null is unknown."""

    applied: str | None
    decided: str | None
    same_bytes: bool | None = Field(description="null where either layout is unknown")
    same_shape: bool | None = Field(description="null where no physical shape was reported")


def compare(book: Book, decided: TensorDecision | None, observed: TensorObservation | None) -> LayoutComparison:
    """Compare one tensor's layouts by bytes on its shape, never by name."""
    applied = observed.layout if observed else None
    shape = observed.physical_shape if observed else None
    if decided is None:
        return LayoutComparison(applied=applied, decided=None, same_bytes=None, same_shape=None)
    same_shape = None if shape is None else tuple(shape) in (decided.physical_shape, decided.passed_shape)
    equal_bytes = None
    if applied is not None and applied in known_layouts(book):
        from preshuffle.registry.layer import same_bytes  # loads AITER's dispatch, which a client never needs

        equal_bytes = same_bytes(book, applied, decided.layout, decided.physical_shape)
    return LayoutComparison(applied=applied, decided=decided.layout, same_bytes=equal_bytes, same_shape=same_shape)


def compare_all(
    book: Book, decided: Mapping[Role, TensorDecision], observed: Mapping[Role, TensorObservation]
) -> dict[Role, LayoutComparison]:
    """Compare every tensor that is decided or observed."""
    roles: dict[Role, None] = dict.fromkeys((*decided, *observed))
    return {role: compare(book, decided.get(role), observed.get(role)) for role in roles}


def known_layouts(book: Book) -> frozenset[str]:
    """Return ids and aliases of all layouts of a book."""
    return frozenset(name for entry in book.layouts.values() for name in (entry.id, *entry.aliases))
