"""Comparison of two books, by entry and field."""

from __future__ import annotations

import json
from typing import Any, Literal

from preshuffle.api.commands.screens.screen import Screen, short_digest
from preshuffle.api.commands.screens.table import Cell, Column
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.loading import Book


class EntryFieldChange(Frozen):
    """A changed field of an entry; null where it is absent."""

    field: str
    before: Any
    after: Any


class Change(Frozen):
    """One entry that an overlay adds or replaces."""

    section: str
    id: str
    change: Literal["added", "replaced"]
    place: str
    fields: tuple[EntryFieldChange, ...]


class Changes(Frozen):
    """All changes that an overlay makes."""

    before: str
    after: str
    changes: tuple[Change, ...]


def compare(before: Book, after: Book) -> Changes:
    """Compare two books.

    The second has at least the entries of the first.
    """
    changes: list[Change] = []
    for section, entries in after.entries.items():
        for id, entry in entries.items():
            old = before.entries[section].get(id)
            if entry == old:
                continue
            left = _flat(old.model_dump(mode="json", exclude_defaults=True)) if old is not None else {}
            right = _flat(entry.model_dump(mode="json", exclude_defaults=True))
            changes.append(
                Change(
                    section=section,
                    id=id,
                    change="added" if old is None else "replaced",
                    place=str(after.places[section, id]),
                    fields=tuple(
                        EntryFieldChange(field=name, before=left.get(name), after=right.get(name))
                        for name in dict.fromkeys([*left, *right])
                        if name != "id" and left.get(name) != right.get(name)
                    ),
                )
            )
    return Changes(before=before.digest, after=after.digest, changes=tuple(changes))


def show_changes(screen: Screen, changes: Changes) -> None:
    """Show the changes."""
    if not changes.changes:
        screen.line("the overlay changes nothing")
    for change in changes.changes:
        style = "good" if change.change == "added" else "warn"
        screen.line(f"{screen.paint(change.change, style)}  {change.section} {change.id}  {change.place}")
        rows = []
        for item in change.fields:
            if change.change == "replaced":
                rows.append((Cell(f"- {item.field}", "bad"), _text(item.before)))
            rows.append((Cell(f"+ {item.field}", "good"), _text(item.after)))
        screen.table([Column(wraps=True), Column(wraps=True)], rows)
    screen.line()
    screen.line(screen.paint(f"{short_digest(changes.before)} → {short_digest(changes.after)}", "dim"))


def _text(value: Any) -> str:
    if value is None:
        return "(not set)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict) and item:
            flat.update(_flat(item, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = item
    return flat
