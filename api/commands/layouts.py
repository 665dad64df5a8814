"""List the book's layouts, or show one, on a shape if given.

A shape is EXPERTS,ROWS,K with K in bytes (for scales: in groups, one byte each).
"""

from __future__ import annotations

import argparse

from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import OK, UsageError
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.screens.screen import Screen, print_json
from preshuffle.api.commands.screens.table import Cell, Column
from preshuffle.registry import Registry
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.suggestions import suggestion
from preshuffle.registry.entries import LayoutEntry


class LayoutList(Frozen):
    """All layouts of a book."""

    layouts: tuple[LayoutEntry, ...]
    registry_digest: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``list`` and ``show``."""
    actions = parser.add_subparsers(required=True, metavar="(list|show)")
    listing = actions.add_parser("list", help="every layout")
    showing = actions.add_parser("show", help="one layout, on a shape where one is given")
    showing.add_argument("layout", metavar="LAYOUT", help="an id or an alias")
    showing.add_argument("--shape", metavar="E,ROWS,K", help="experts, rows and K, for example 128,6144,1536")
    showing.add_argument("--address", metavar="E,ROW,K", help="print where one byte (or group) lies; needs --shape")
    for sub, run in ((listing, list_layouts), (showing, show_layout)):
        add_book_options(sub, tables=False)
        add_json(sub)
        sub.set_defaults(run=run)


def list_layouts(args: argparse.Namespace) -> int:
    """Print all layouts."""
    registry = load_registry(args)
    if args.json:
        entries = tuple(registry.book.layouts.values())
        print_json(LayoutList(layouts=entries, registry_digest=registry.digest))
        return OK
    screen = Screen.of_terminal()
    columns = [Column("layout"), Column("unit"), Column("tile"), Column("gate_mode"), Column("pattern", wraps=True)]
    rows = []
    for entry in registry.book.layouts.values():
        layout = entry.layout()
        tile = f"{layout.pattern.row_tile}×{layout.k_multiple}"
        name = "\n".join((entry.id, *entry.aliases))
        rows.append((Cell(name, "name"), entry.unit, tile, layout.gate_mode, f"{entry.pattern}\n{entry.title}"))
    screen.table(columns, rows, indent=0)
    screen.show()
    return OK


def show_layout(args: argparse.Namespace) -> int:
    """Print one layout, on a shape where one is given."""
    from preshuffle.api.commands.screens.layout_report import report_on
    from preshuffle.api.commands.screens.layout_view import show_report

    registry = load_registry(args)
    if args.address is not None and args.shape is None:
        raise UsageError("layouts show: --address needs --shape")
    shape = _three(args.shape, "--shape", "E,ROWS,K") if args.shape is not None else None
    position = _three(args.address, "--address", "E,ROW,K") if args.address is not None else None
    report = report_on(registry.book, _entry(registry, args.layout), shape, position)
    if args.json:
        print_json(report)
    else:
        screen = Screen.of_terminal()
        show_report(screen, report)
        screen.show()
    return OK


def _entry(registry: Registry, name: str) -> LayoutEntry:
    for entry in registry.book.layouts.values():
        if name in (entry.id, *entry.aliases):
            return entry
    names = [known for entry in registry.book.layouts.values() for known in (entry.id, *entry.aliases)]
    raise UsageError(f"layouts show: unknown layout {name!r}{suggestion(name, names, few=len(names))}")


def _three(text: str, option: str, form: str) -> tuple[int, int, int]:
    try:
        first, second, third = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"layouts show: {option} {text!r}; valid: three whole numbers, {form}") from None
    return first, second, third
