"""Check, show, compare, describe or extend the registry's book.

Exit codes: 0 fine, 1 nothing of that name, or problems of a book that loads, 2 the book or the tables do not load.
"""

from __future__ import annotations

import argparse

from preshuffle.api.commands.options.books import add_book_options, chosen_book, load_registry
from preshuffle.api.commands.options.failures import OK
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.registry.schema import SCHEMAS
from preshuffle.api.commands.registry.skeletons import SKELETONS, skeleton, write_skeleton
from preshuffle.api.commands.screens.screen import Screen, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``check``, ``show``, ``diff``, ``schema`` and ``new``."""
    actions = parser.add_subparsers(required=True, metavar="(check|show|diff|schema|new)")
    checking = actions.add_parser("check", help="load book, overlays and tables; name everything that is wrong")
    showing = actions.add_parser("show", help="the sections, the entries of one, or one entry")
    showing.add_argument("section", nargs="?", metavar="SECTION")
    showing.add_argument("id", nargs="?", metavar="ID")
    comparing = actions.add_parser("diff", help="what an overlay adds and replaces, field by field")
    comparing.add_argument("overlay", metavar="DIR", help="the overlay, a folder or a file")
    schema = actions.add_parser("schema", help="JSON Schema of a book file, or of what a command or the service reads")
    schema.add_argument("what", nargs="?", choices=SCHEMAS, default=SCHEMAS[0], metavar="WHAT", help=", ".join(SCHEMAS))
    schema.add_argument("--example", action="store_true", help="print an example instead; not of the book")
    new = actions.add_parser("new", help="a commented skeleton of an entry, which loads as an overlay")
    new.add_argument("kind", choices=tuple(SKELETONS), metavar="KIND", help=", ".join(SKELETONS))
    new.add_argument("id", nargs="?", metavar="ID", help="of the new entry")
    new.add_argument("--output", "-o", metavar="FILE", help="write it to this new file instead of standard output")
    for sub, run in ((checking, run_check), (showing, run_show), (comparing, run_diff)):
        add_book_options(sub, tables=sub is checking)
        sub.set_defaults(run=run)
    schema.set_defaults(run=print_schema)
    new.set_defaults(run=run_new)
    for sub in (checking, showing, comparing, schema, new):
        add_json(sub)


def run_check(args: argparse.Namespace) -> int:
    """Lint the book with its overlays, and the kernel tables."""
    from preshuffle.api.commands.registry.check import check_books, show_check

    report = check_books(args)
    if args.json:
        print_json(report)
    else:
        screen = Screen.of_terminal()
        show_check(screen, report)
        screen.show()
    return report.exit_code


def run_show(args: argparse.Namespace) -> int:
    """Show sections, a section's entries, or one entry with its place."""
    from preshuffle.api.commands.registry.show import report_on, show_report

    report = report_on(load_registry(args).book, args.section, args.id)
    if args.json:
        print_json(report)
    else:
        screen = Screen.of_terminal()
        show_report(screen, report)
        screen.show()
    return OK


def run_diff(args: argparse.Namespace) -> int:
    """Show what one more overlay changes."""
    from preshuffle.api.commands.registry.diff import compare, show_changes
    from preshuffle.registry import Registry

    overlays = chosen_book(args)
    before = Registry.load(overlays)
    after = Registry.load([*overlays, args.overlay])
    changes = compare(before.book, after.book)
    if args.json:
        print_json(changes)
    else:
        screen = Screen.of_terminal()
        show_changes(screen, changes)
        screen.show()
    return OK


def print_schema(args: argparse.Namespace) -> int:
    """Print a JSON Schema or an example.

    ``--json`` or not, it is JSON.
    """
    import json

    from preshuffle.api.commands.registry.schema import example_of, schema_of

    document = example_of(args.what) if args.example else schema_of(args.what)
    print(json.dumps(document, indent=None if args.json else 2))
    return OK


def run_new(args: argparse.Namespace) -> int:
    """Print or write a skeleton."""
    import json

    text = skeleton(args.kind, args.id, args.output or "FILE")
    if args.output:
        write_skeleton(text, args.output)
    if args.json:
        print(json.dumps({"kind": args.kind, "file": args.output, "text": text}))
    elif args.output:
        print(f"written to {args.output}: its comments say how to go on")
    else:
        print(text, end="")
    return OK
