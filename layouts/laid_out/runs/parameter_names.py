"""Names that an engine's parameters have for the tensors of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

from preshuffle.registry import Query
from preshuffle.registry.base.words import Role
from preshuffle.registry.entries import CheckpointTensor
from preshuffle.registry.loading import Book


def parameter_names(book: Book, query: Query, recipe: str) -> dict[str, str]:
    """Return an engine's names of roles, where they differ.

    Args:
        book: its ``target_names`` say them.
        query: says which engine is meant, if any, and whose checkpoint it is.
        recipe: id of the recipe by which the layer is laid out.
    """
    found: dict[str, str] = {}
    for entry in book.entries["target_names"].values():
        if query.engine is None or entry.engine != query.engine.name:
            continue
        if entry.recipes and recipe not in entry.recipes:
            continue
        if query.producer not in entry.not_producers:
            found.update(entry.names)
    return found


def parameter_prefix(entries: Mapping[Role, CheckpointTensor]) -> str:
    """Return what stands before a layer's parameters, with ``{layer}``.

    That of the checkpoint's experts: an engine renames modules as it does for the checkpoint's other tensors.
    """
    modules = [entry.name.partition("{expert}")[0].split(".")[:-1] for entry in entries.values()]
    common = list(takewhile(lambda parts: len(set(parts)) == 1, zip(*modules, strict=False)))
    return "".join(f"{parts[0]}." for parts in common)
