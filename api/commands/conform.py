"""Hold the book against a real AITER, claim by claim.

AITER's own code runs in child processes, compiled parts replaced by stand-ins where there is no AMD GPU; nothing of it
is imported here. Compared are: features with the version table; the bytes of every layout with AITER's functions,
padding included; its own dispatch with the predicted kernels, over every row of its tables; every kernel name and
column; the layouts that prebuilt kernels are found to read; AITER's Triton MoE kernels on our bytes, against float64;
and on an AMD GPU golden layers through all kernels. With --engine the engine's own code (weight loaders,
process_weights_after_loading, the call) converts small layers on a CPU, and bytes, shapes, tags and arguments are
compared with the decision; differences by faults of the engine that are known are told, and count as agreed.

The report says what was tried, what agreed, what did not (where in the code, and which entry of the book), and what
could not be run and why. It holds nothing of this machine but versions and the GPU's name, and may be sent to us
(docs/proofs.md) or to a service (PUT /v1/conformance/BUILD).

Exit codes: 0 everything that was run agrees, 1 something does not, 2 bad input, 3 nothing could be run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preshuffle.api.commands.options.books import add_book_options, chosen_book, load_registry
from preshuffle.api.commands.options.failures import FAILED, OK, UNKNOWN, UsageError, needs_extra
from preshuffle.api.commands.options.parser import add_json, nearest
from preshuffle.api.commands.screens.screen import Screen, print_json, short_digest
from preshuffle.api.commands.screens.table import Cell, Column

if TYPE_CHECKING:
    from preshuffle.registry.values.conformance import Claim, ClaimResult, ConformanceReport

_SHOWN = 12
_EVERY_S = 2.0
_STYLES = {"agrees": "good", "disagrees": "bad", "not known": "warn"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--aiter",
        metavar="PLACE",
        default="installed",
        help="installed (default), a checkout, or a wheel file",
    )
    parser.add_argument(
        "--engine",
        metavar="NAME[@PLACE]",
        help="vllm, sglang or atom: its own conversions; @ the version that must be installed, a checkout, or a wheel",
    )
    parser.add_argument("--layers", metavar="NAME,NAME", help="layers of the engine; a wrong one lists all")
    parser.add_argument("--report", metavar="FILE", help="write the report as JSON, too")
    parser.add_argument("--only", metavar="KIND,KIND", help="kinds of claims to run; a wrong one lists all")
    parser.add_argument("--all", action="store_true", help="derive a kernel of every kind and tile, for half an hour")
    parser.add_argument("--calls", metavar="N", help="kernel choices to compare (default: the whole grid)")
    parser.add_argument("--kernels", metavar="N", help="prebuilt kernels to derive (default: 6)")
    add_book_options(parser, tables=False)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the comparison, and show or write its report."""
    with needs_extra("preshuffle conform", "layouts"):
        from preshuffle.layouts.conform import ConformOptions, conform
    registry = load_registry(args)
    options: dict[str, Any] = {"overlays": tuple(chosen_book(args))}
    if args.engine is not None:
        options["engine"] = _engine(args.engine, registry.book.engines)
    if args.layers is not None:
        options["layers"] = _layers(args.layers)
    if args.only:
        options["claims"] = _kinds(args.only)
    if args.calls is not None:
        options["calls"] = _number("calls", args.calls)
    if args.all:
        options["kernels"] = None
    elif args.kernels is not None:
        options["kernels"] = _number("kernels", args.kernels)
    target = _writable(args.report)
    report = conform(args.aiter, registry, ConformOptions(**options), _Progress())
    if target is not None:
        target.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if args.json:
        print_json(report)
    else:
        _show(report)
    if report.verdict == "disagrees":
        return FAILED
    return OK if report.verdict == "agrees" else UNKNOWN


class _Progress:
    """Progress on standard error, a line at a time, for terminals and logs alike."""

    def __init__(self) -> None:
        self.kind, self.told = "", 0.0

    def __call__(self, kind: Claim, done: int, all: int, what: str) -> None:
        """Print where the run is, at most every two seconds."""
        now = time.monotonic()
        if kind == self.kind and now - self.told < _EVERY_S:
            return
        self.told = now
        parts = [f"{kind.replace('_', ' ')}"]
        parts += [f"{min(done, all):,} of {all:,}"] if all else [f"{done:,}"] if done else []
        parts += [what] if what else []
        print(f"preshuffle: {', '.join(parts)}", file=sys.stderr, flush=True)
        self.kind = kind


def _kinds(text: str) -> tuple[Claim, ...]:
    from preshuffle.registry.values.conformance import CLAIMS

    asked = _names("only", text, CLAIMS)
    return tuple(kind for kind in CLAIMS if kind in asked)


def _layers(text: str) -> tuple[str, ...]:
    from preshuffle.layouts.conform import engine_layers

    return _names("layers", text, engine_layers())


def _names(option: str, text: str, valid: Iterable[str]) -> tuple[str, ...]:
    """Return the names of a list with commas."""
    names, known = tuple(part.strip() for part in text.split(",") if part.strip()), tuple(valid)
    for name in names:
        if name not in known:
            raise UsageError(f"conform: --{option} {name!r}{nearest(name, known)}; valid: {', '.join(known)}")
    return names


def _engine(named: str, known: Mapping[str, object]) -> str:
    name, at, place = named.partition("@")
    if name not in known:
        raise UsageError(f"conform: --engine {name!r}{nearest(name, known)}; valid: {', '.join(known)}")
    if at and not place.strip():
        raise UsageError(f"conform: --engine {named!r}; valid: {name}, or behind the @ a version, a folder or a wheel")
    return named


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 10_000_000):
        raise UsageError(f"conform: --{name} {text!r}; valid: 0..10000000")
    return int(text)


def _writable(path: str | None) -> Path | None:
    """Return the report's file, before minutes are spent on what goes into it."""
    if path is None:
        return None
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise UsageError(f"conform: --report {path}: not a file in an existing folder")
    return target


def _show(report: ConformanceReport) -> None:
    from preshuffle.registry.values.conformance import CLAIMS

    screen = Screen.of_terminal()
    build = report.aiter
    compared = f", compared as {build.supposed}" if build.supposed else ""
    screen.line(f"{screen.paint(f'AITER {build.id}', 'bold')}  {build.place}{compared}")
    screen.pairs([("sources", short_digest(build.digest)), ("registry", short_digest(report.registry_digest))])
    columns = [Column("claims"), Column("agree", right=True), Column("of", right=True), Column("s", right=True)]
    columns.append(Column("compared", wraps=True))
    screen.table(columns, [_row(kind, result) for kind, result in report.claims.items()])
    for kind, result in report.claims.items():
        code = report.engine if kind == "engine" else "AITER"
        for found in result.disagreements[:_SHOWN]:
            place = f" ({found.source})" if found.source else ""
            screen.text(
                f"{found.entry}, {found.case}: the book: {found.here}; {code}: {found.there}{place}", style="bad"
            )
        if result.disagreed > _SHOWN:
            screen.text(f"{result.disagreed - _SHOWN:,} more {CLAIMS[kind][0]} disagree: --report FILE has them")
    _show_left_out(screen, report)
    screen.line(screen.paint(f"{report.verdict}: {report.summary()}", _STYLES[report.verdict]))
    screen.line(f"report {report.digest}")
    screen.show()


def _row(kind: Claim, result: ClaimResult) -> tuple[str | Cell, ...]:
    from preshuffle.registry.values.conformance import CLAIMS

    name, what = CLAIMS[kind]
    style = "bad" if result.disagreed else "good" if result.tried else "warn"
    numbers = (Cell(f"{result.agreed:,}", style), f"{result.tried:,}", f"{result.seconds:.1f}")
    return (Cell(name, "name"), *numbers, what)


def _show_left_out(screen: Screen, report: ConformanceReport) -> None:
    rows = [(kind, left) for kind, result in report.claims.items() for left in result.not_run]
    if rows:
        screen.heading("not run", f"{len(rows)} parts")
        for _, left in rows[:_SHOWN]:
            screen.text(f"{left.what}: {left.why}", style="dim")
        if len(rows) > _SHOWN:
            screen.text(f"and {len(rows) - _SHOWN} more: --json or --report FILE", style="dim")
    for note in dict.fromkeys(note for result in report.claims.values() for note in result.notes):
        screen.text(note, style="dim")
