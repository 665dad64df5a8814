"""Lint of fusions: switches, features and archs that they name, and ties."""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.entries import FusionEntry
from preshuffle.registry.lint.effort import Effort
from preshuffle.registry.lint.ties import ties
from preshuffle.registry.loading import Book


def fusion_problems(book: Book, effort: Effort | None = None) -> Iterator[Problem]:
    """Yield what is wrong with the fusions of a book."""
    for entry in book.fusions.values():
        yield from _names(book, entry)
    for pair in ties((entry for entry in book.fusions.values() if entry.outcome), effort):
        first, second = book.packaged_first("fusions", pair)
        yield book.places["fusions", second.id].problem(
            f"fusions {first.id!r} ({book.places['fusions', first.id]}) and {second.id!r} are "
            f"equally specific and can hold for the same layer; give {second.id!r} one more fact in `when`, or "
            f"`priority: 1` to win",
        )


def _names(book: Book, entry: FusionEntry) -> Iterator[Problem]:
    place = book.places["fusions", entry.id]
    for name in entry.aiter_features:
        if name not in book.features:
            yield place.unknown("unknown feature", name, book.features, "aiter_features")
    for field, condition in entry.conditions().items():
        if field.startswith("env.") and (name := field.removeprefix("env.")) not in book.flags:
            yield place.unknown("unknown switch", name, book.flags, "when", "env", name)
        known = {"arch": book.archs, "model_type": book.model_types}.get(field, {})
        for value in condition.values if known else ():
            if value not in known:
                yield place.unknown(f"unknown {field}", str(value), known, "when", field)
