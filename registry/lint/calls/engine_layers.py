"""Lint of engines' layers: engines, signatures, options and words they name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.base.suggestions import near
from preshuffle.registry.entries import EngineLayerEntry
from preshuffle.registry.loading import Book


def engine_layer_problems(book: Book) -> Iterator[Problem]:
    """Yield entries that name an unknown engine, signature or option."""
    entries: Iterable[EngineLayerEntry] = book.entries["engine_layers"].values()
    for entry in entries:
        place = book.places["engine_layers", entry.id]
        if place.packaged and entry.engine not in book.engines:
            yield place.problem(f"unknown engine {entry.engine!r}", "engine", valid=near(entry.engine, book.engines))
        for name in entry.options:
            if name not in book.flags:
                yield place.problem(f"unknown option {name!r}", "options", name, valid=near(name, list(book.flags)))
        functions: list[tuple[str, tuple[str | int, ...]]] = [(entry.function, ("function",))]
        functions += [
            (method.function, ("methods", index, "function"))
            for index, method in enumerate(entry.methods)
            if method.function is not None
        ]
        for function, path in functions:
            if function not in book.signatures.by_id:
                known = near(function, book.signatures.by_id)
                yield place.problem(f"unknown signature {function!r}", *path, valid=known)
