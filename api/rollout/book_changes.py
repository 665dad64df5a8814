"""Difference of two books, by entry and field."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from preshuffle.api.store import BookEntries, FieldChange, differences
from preshuffle.registry.base.frozen import Frozen


class EntryChange(Frozen):
    """One entry that differs between two books."""

    section: str
    id: str
    change: Literal["added", "removed", "replaced"]
    fields: tuple[FieldChange, ...] = Field(description="of an entry that was replaced")


class BookChanges(Frozen):
    """All entries that differ between two books."""

    before: str
    after: str
    changes: tuple[EntryChange, ...]


def compare_entries(before: BookEntries, after: BookEntries) -> tuple[EntryChange, ...]:
    """Return the entries that differ between two books.

    Example:
        >>> before, after = {"models": {"a": {"tp": 1}}}, {"models": {"a": {"tp": 2}, "b": {}}}
        >>> [(change.id, change.change) for change in compare_entries(before, after)]
        [('a', 'replaced'), ('b', 'added')]
    """
    changes = []
    for section in dict.fromkeys([*before, *after]):
        old, new = before.get(section, {}), after.get(section, {})
        for id in dict.fromkeys([*old, *new]):
            if old.get(id) == new.get(id):
                continue
            change: Literal["added", "removed", "replaced"]
            change = "added" if id not in old else "removed" if id not in new else "replaced"
            fields = tuple(differences(old[id], new[id])) if change == "replaced" else ()
            changes.append(EntryChange(section=section, id=id, change=change, fields=fields))
    return tuple(changes)
