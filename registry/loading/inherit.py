"""Inheritance between model types: ``like`` names the type to take fields from."""

from __future__ import annotations

from collections.abc import Mapping

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.base.limits import MAX_PROBLEMS
from preshuffle.registry.base.suggestions import meant, near
from preshuffle.registry.entries import ModelTypeEntry
from preshuffle.registry.loading.book import Place

_MAX_CHAIN = 32
_OWN = frozenset({"id", "like", "aliases", "evidence"})
"""Fields that no type takes from another."""


def inherit(
    types: Mapping[str, ModelTypeEntry], places: Mapping[tuple[str, str], Place], problems: list[Problem]
) -> dict[str, ModelTypeEntry]:
    """Return the model types, completed by those that they are like.

    Args:
        types: entries by id.
        places: where entries are written, by section and id.
        problems: takes a problem for each ``like`` that is unknown or leads back to itself.
    """
    complete: dict[str, ModelTypeEntry] = {}
    known = sorted(types)

    def resolved(id: str, before: tuple[str, ...]) -> ModelTypeEntry:
        if id in complete:
            return complete[id]
        entry = types[id]
        base = entry.like
        if base is not None and (base in before or base not in types or base == id):
            text = f"{id!r} is like itself" if base in types else f"unknown model type {base!r}"
            others = [name for name in known if name != id] if len(problems) <= MAX_PROBLEMS else []
            valid = near(base, others)
            text += meant(base, others) if base not in types else ""
            problems.append(places["model_types", id].problem(text, "like", valid=valid))
        elif len(before) >= _MAX_CHAIN:
            text = f"more than {_MAX_CHAIN} model types are like each other in a row"
            problems.append(places["model_types", id].problem(text, "like"))
        elif base is not None:
            entry = _completed(entry, resolved(base, (*before, id)))
        complete[id] = entry
        return entry

    return {id: resolved(id, ()) for id in types}


def _completed(entry: ModelTypeEntry, base: ModelTypeEntry) -> ModelTypeEntry:
    stated = entry.model_fields_set - _OWN
    taken = {name: getattr(base, name) for name in ModelTypeEntry.model_fields if name not in stated | _OWN}
    return entry.altered(**taken)
