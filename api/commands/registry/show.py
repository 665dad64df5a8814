"""Report on the book: sections, entries of one, or one entry."""

from __future__ import annotations

from typing import Any

import yaml

from preshuffle.api.commands.options.failures import UsageError
from preshuffle.api.commands.options.parser import nearest
from preshuffle.api.commands.screens.screen import Screen, short_digest
from preshuffle.api.commands.screens.table import Cell, Column
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.suggestions import suggestion
from preshuffle.registry.loading import Book

_FEW = 30
"""Ids that are all listed where none is close."""


class Entry(Frozen):
    """An entry of the book, with its position.

    Attributes:
        place: ``file:line``; an overlay's where an overlay has replaced it.
        fields: what the book says, defaults left out.
    """

    section: str
    id: str
    place: str
    fields: dict[str, Any]


class ShowReport(Frozen):
    """Counts of all sections, and the entries selected."""

    registry_digest: str
    sources: tuple[str, ...]
    counts: dict[str, int]
    entries: tuple[Entry, ...]


def report_on(book: Book, section: str | None, id: str | None) -> ShowReport:
    """Collect the selected entries.

    Raises:
        UsageError: there is no such section or entry.
    """
    entries: tuple[Entry, ...] = ()
    if section is not None:
        if section not in book.entries:
            close = nearest(section, book.entries)
            raise UsageError(f"registry show: unknown section {section!r}{close}; valid: {', '.join(book.entries)}")
        known = book.entries[section]
        id = _entry_id(book, section, id) if id is not None else None
        if id is not None and id not in known:
            close = nearest(id, known) or suggestion(id, known, few=_FEW)
            raise UsageError(f"registry show: no {id!r} in {section}{close}")
        entries = tuple(_entry(book, section, name) for name in ([id] if id is not None else known))
    counts = {name: len(items) for name, items in book.entries.items()}
    return ShowReport(registry_digest=book.digest, sources=book.sources, counts=counts, entries=entries)


def show_report(screen: Screen, report: ShowReport) -> None:
    """Show the report."""
    if len(report.entries) == 1:
        entry = report.entries[0]
        screen.line(f"{screen.paint(entry.id, 'good')}  {entry.section}, {entry.place}")
        text = yaml.safe_dump(entry.fields, sort_keys=False, allow_unicode=True, width=max(40, screen.width - 4))
        for line in text.rstrip().splitlines():
            screen.line(f"  {line}")
    elif report.entries:
        columns = [Column("id", wraps=True), Column("what", wraps=True), Column("place")]
        rows = [(Cell(entry.id, "name"), _summary(entry), Cell(entry.place, "dim")) for entry in report.entries]
        screen.table(columns, rows, indent=0)
    else:
        rows_of_counts = [(Cell(name, "name"), str(count)) for name, count in report.counts.items()]
        screen.table([Column("section"), Column("entries", right=True)], rows_of_counts, indent=0)
        screen.line()
        screen.text(f"from {', '.join(report.sources)}", indent=0, style="dim")
        screen.line(screen.paint(f"registry {short_digest(report.registry_digest)}", "dim"))


def _entry_id(book: Book, section: str, name: str) -> str:
    """Return the id of a GPU or a model that is given by another of its names."""
    if section == "archs":
        return book.arch_names.gfx(name)
    model = book.model_names.find(name) if section == "models" else None
    return name if model is None else model.id


def _entry(book: Book, section: str, id: str) -> Entry:
    place = book.place_of(section, id)
    value = book.entries[section][id]
    fields = value.model_dump(mode="json", exclude_defaults=True, exclude={"id"})
    return Entry(section=section, id=id, place=str(place), fields=fields)


def _summary(entry: Entry) -> str:
    fields = entry.fields
    if entry.section == "rules":
        return f"→ {fields['use']}: {fields['because']}"
    if entry.section == "models":
        sizes = [
            f"{name} {fields[name]}" for name in ("num_experts", "hidden_size", "intermediate_size") if name in fields
        ]
        return ", ".join([fields.get("weight_dtype", ""), *sizes]).strip(", ")
    if entry.section == "flags":
        return f"{fields['owner']}: {fields['meaning']}"
    if entry.section == "kernel_evidence":
        known = fields["known"]
        return f"{fields.get('family') or fields['backend']}: {known['kind']} {known.get('kernel', '')}".rstrip()
    if entry.section == "archs":
        return ", ".join(fields["products"])
    return str(fields.get("title", ""))
