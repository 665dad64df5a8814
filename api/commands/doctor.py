"""Diagnose this installation: what works, and how to fix the rest.

Exit codes: 0 nothing is wrong (what is optional may be missing), 1 something is, 2 bad input.
"""

from __future__ import annotations

import argparse

from preshuffle.api.commands.options.books import add_book_options, chosen_book, chosen_tables
from preshuffle.api.commands.options.failures import FAILED, OK
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.screens.screen import Screen, print_json
from preshuffle.api.commands.screens.table import Cell, Column

_MARKS = {"ok": ("✓", "good"), "info": ("-", "dim"), "warning": ("!", "warn"), "problem": ("✗", "bad")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_book_options(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the diagnosis and print it."""
    from preshuffle.api.doctor import examine

    report = examine(chosen_book(args), chosen_tables(args))
    if args.json:
        print_json(report)
    else:
        screen = Screen.of_terminal()
        screen.line(f"preshuffle {report.version}  Python {report.python}")
        rows = []
        for check in report.checks:
            mark, style = _MARKS[check.status]
            text = check.detail + (f"\nfix: {check.fix}" if check.fix else "")
            rows.append((Cell(mark, style), Cell(check.name, "name"), Cell(text, style if style == "bad" else "")))
        screen.table([Column(), Column(), Column(wraps=True)], rows, indent=0)
        wrong = sum(check.status == "problem" for check in report.checks)
        verdict = "nothing is wrong" if report.ok else f"{wrong} thing{'s' if wrong > 1 else ''} to fix"
        screen.line(screen.paint(verdict, "good" if report.ok else "bad"))
        screen.show()
    return OK if report.ok else FAILED
