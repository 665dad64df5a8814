"""Compare the kernels of two AITER versions or table sets.

A and B are each PATH@VERSION, PATH, @VERSION (no tables: what AITER does for shapes without a row) or auto (the
installed AITER). Compared are the book's models at several TP sizes, and every shape that either side has rows for, at
every token count. The gravest changes come first: layout (other bytes are read), error (one side raises), activation
(another dtype), kernel (another kernel reads the same bytes).

Exit codes: 0 no change of layout and no new error, 1 some, 2 bad input.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from preshuffle.api.commands.kernels.book_deployments import book_deployments
from preshuffle.api.commands.kernels.tables import one_side
from preshuffle.api.commands.options.books import add_book_options, chosen_book
from preshuffle.api.commands.options.failures import FAILED, OK
from preshuffle.api.commands.screens.screen import Screen, print_json, short_digest
from preshuffle.api.commands.screens.table import Cell, Column
from preshuffle.registry import Registry
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.ranges import range_text
from preshuffle.registry.kernels import (
    SEVERITIES,
    DispatchCall,
    KernelChange,
    KernelTables,
    Severity,
    Side,
    behaviour_of,
    calls_of,
    changes,
    ranked,
)
from preshuffle.registry.layer import REACH

_STYLE: dict[Severity, str] = {"layout": "bad", "error": "bad", "activation": "warn", "kernel": ""}
_SHOWN = 40


class SideReport(Frozen):
    """One side of the comparison."""

    name: str
    version: str | None
    digest: str | None
    rows: int


class KernelsDiff(Frozen):
    """Changes from A to B.

    Attributes:
        compared: deployments and shapes that were compared.
        left_out: those that pass gate_mode=interleave, where one of the two has no gate_mode.
        counts: changes by severity.
    """

    before: SideReport
    after: SideReport
    compared: int
    left_out: int
    counts: dict[str, int]
    changes: tuple[KernelChange, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's options."""
    parser.add_argument("before", metavar="A", help="PATH@VERSION, PATH, @VERSION or auto")
    parser.add_argument("after", metavar="B", help="the same")
    parser.add_argument("--models-only", action="store_true", help="compare the book's models only")
    parser.add_argument("--severity", choices=SEVERITIES, help="show changes as grave as this, or graver")
    parser.add_argument("--all", action="store_true", help=f"show every change; without it the gravest {_SHOWN}")
    add_book_options(parser, tables=False)


def run(args: argparse.Namespace) -> int:
    """Compare both sides and show the changes."""
    before, after = one_side(args.before), one_side(args.after)
    registry = Registry.load(overlays=chosen_book(args))
    calls, left_out = _calls(registry, before, after, args.models_only)
    more = (before, after, REACH, registry.book.families)
    found = ranked(change for name, call in calls.items() for change in changes(name, call, *more))
    if args.severity is not None:
        selected = SEVERITIES[: SEVERITIES.index(args.severity) + 1]
        found = [change for change in found if change.severity in selected]
    answer = KernelsDiff(
        before=_report(args.before, *before),
        after=_report(args.after, *after),
        compared=len(calls),
        left_out=left_out,
        counts={name: count for name in SEVERITIES if (count := Counter(c.severity for c in found)[name])},
        changes=tuple(found),
    )
    if args.json:
        print_json(answer)
    else:
        screen = Screen.of_terminal()
        _show(screen, answer, 0 if args.all else _SHOWN)
        screen.show()
    return FAILED if any(change.severity == "layout" or change.after.error for change in found) else OK


def _calls(
    registry: Registry,
    before: tuple[str | None, KernelTables | None],
    after: tuple[str | None, KernelTables | None],
    models_only: bool,
) -> tuple[dict[str, DispatchCall], int]:
    """Return the calls that both sides support, and how many were dropped."""
    models = list(registry.book.models)
    versions = (after[0], before[0])
    calls = {item.label: item.call for item in book_deployments(registry, models, versions=versions)}
    if not models_only:
        for _, tables in (before, after):
            calls.update(calls_of(tables.rows if tables else ()))
    both = all("gate_mode" in behaviour_of(version).data.features for version in versions)
    kept = {name: call for name, call in calls.items() if both or call.gate_mode == "separated"}
    return kept, len(calls) - len(kept)


def _report(name: str, version: str | None, tables: KernelTables | None) -> SideReport:
    rows = tables.row_count if tables else 0
    return SideReport(name=name, version=version, digest=tables.digest if tables else None, rows=rows)


def _show(screen: Screen, answer: KernelsDiff, shown: int) -> None:
    for side in (answer.before, answer.after):
        version = f"AITER {side.version}" if side.version else "any AITER (as the newest known)"
        tables = f"{side.rows:,} rows, {short_digest(side.digest)}" if side.digest else "no tables"
        screen.line(f"{screen.paint(side.name, 'bold')}  {version}, {tables}")
    counts = ", ".join(f"{count} {name}" for name, count in answer.counts.items())
    screen.line(f"{answer.compared} deployments and shapes compared: {counts or 'nothing changes'}")
    if answer.left_out:
        screen.text(f"{answer.left_out} more pass gate_mode=interleave, which one side does not have", style="dim")
    lines = _lines(answer.changes)
    kept = lines[: shown or None]
    columns = [Column("deployment or shape", wraps=True), Column("tokens"), Column("A", wraps=True)]
    for severity, some in groupby(kept, key=lambda line: line.severity):
        screen.heading(severity, _MEANING[severity])
        rows = [(line.subject, _tokens(line), line.old, Cell(line.new, _STYLE[severity])) for line in some]
        screen.table([*columns, Column("B", wraps=True)], rows)
    if len(lines) > len(kept):
        screen.line()
        screen.text(f"{len(lines) - len(kept)} more lines; --all shows them, --json has everything")


_MEANING: dict[Severity, str] = {
    "layout": "other bytes are read: lay the weights out anew, or stay",
    "error": "AITER raises on one side only",
    "activation": "activations run in another dtype",
    "kernel": "another kernel reads the same bytes",
}


@dataclass(frozen=True, slots=True)
class _Line:
    """Adjacent changes that are shown as one line."""

    subject: str
    severity: Severity
    lo: int
    hi: int | None
    old: str
    new: str


def _lines(changes: Sequence[KernelChange]) -> list[_Line]:
    lines: list[_Line] = []
    for change in changes:
        line = _Line(change.subject, change.severity, change.lo, change.hi, *_sides(change))
        last = lines[-1] if lines else None
        if last is not None and replace(line, lo=last.lo, hi=last.hi) == last and last.hi == line.lo - 1:
            lines[-1] = replace(last, hi=line.hi)
        else:
            lines.append(line)
    return lines


def _tokens(line: _Line) -> str:
    return "all" if (line.lo, line.hi) == (1, None) else range_text(line.lo, line.hi, "–")


def _sides(change: KernelChange) -> tuple[str, str]:
    """Return what differs between both sides of a change.

    That is layouts, errors, dtypes or names, and no more.
    """
    before, after = change.before, change.after
    if change.severity == "layout":
        roles = [role for role, layout in before.reads.items() if after.reads.get(role, layout) != layout]
        return _reads(before, roles), _reads(after, roles)
    if change.severity == "activation":
        return tuple(f"{side.activation_dtype}\n{_names(side)}" for side in (before, after))  # type: ignore[return-value]
    return _names(before), _names(after)


def _reads(side: Side, roles: list[str]) -> str:
    return "\n".join(f"{role} {side.reads[role]}" for role in roles)


def _names(side: Side) -> str:
    if side.error:
        return side.error
    tuned = {True: "tuned", False: "untuned", None: ""}[side.tuned]
    return "\n".join(part for part in (side.stage1, side.stage2, tuned) if part)
