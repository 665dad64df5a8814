"""Prove that a laid-out checkpoint is what its manifest says.

Sizes, headers and keys of all files are compared with the manifest, and the checksums of samples of some tensors;
--full reads every byte. With --against, experts are laid out again from the checkpoint and compared byte by byte, some
by default, all with --full. Where bytes are wrong, identify says what they are, as far as it finds out.

Exit codes: 0 right, 1 wrong, 2 bad input, or OUT is unfinished.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from preshuffle.api.commands.checkpoints.progress_bar import progress_listener
from preshuffle.api.commands.checkpoints.writing import add_workers, workers_of
from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import FAILED, OK, UsageError, needs_extra
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.screens.screen import Screen, print_json
from preshuffle.api.commands.screens.table import Cell, Column

if TYPE_CHECKING:
    from preshuffle.layouts.laid_out import Verification


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("out", metavar="OUT", help="the laid-out checkpoint")
    parser.add_argument("--against", metavar="CHECKPOINT", help="the checkpoint that it was made of")
    parser.add_argument("--full", action="store_true", help="every byte instead of samples")
    parser.add_argument("--samples", metavar="N", default="64", help="tensors that are sampled (default 64)")
    parser.add_argument("--seed", metavar="N", help="chooses the samples; a new one each time by default")
    add_workers(parser)
    add_book_options(parser, tables=False)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify and show the result."""
    samples, seed = _number("samples", args.samples), None if args.seed is None else _number("seed", args.seed)
    with needs_extra("preshuffle verify", "layouts"):
        from preshuffle.layouts.laid_out import core_count, verify_laid_out
    registry = load_registry(args)
    line = progress_listener(json=False, work="checking")
    try:
        found = verify_laid_out(
            Path(args.out),
            against=args.against,
            full=args.full,
            samples=samples,
            seed=seed,
            registry=registry,
            workers=workers_of(args) or core_count(),
            listener=line,
        )
    finally:
        line.clear()
    if args.json:
        print_json(found)
    else:
        _show(found, args.out)
    return OK if found.verdict == "ok" else FAILED


def _show(found: Verification, out: str) -> None:
    screen = Screen.of_terminal()
    style = "good" if found.verdict == "ok" else "bad"
    screen.line(f"{screen.paint(out, 'bold')}  {screen.paint(found.verdict, style)}  {found.key}")
    what = f"{found.files} files, {found.tensors} tensors {'read' if found.proof == 'full' else 'sampled'}"
    if found.against is not None:
        what += f", {found.recomputed} laid out again from {found.against}"
    seed = f" (--seed {found.seed} repeats it)" if found.seed is not None else ""
    screen.text(f"{what}{seed}")
    columns = [Column("file"), Column("tensor", wraps=True), Column("problem", wraps=True), Column("it is", wraps=True)]
    screen.table(
        columns,
        [(one.file, one.tensor or "", Cell(one.problem, "bad"), one.identified or "") for one in found.problems],
    )
    screen.show()


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 32):
        raise UsageError(f"verify: --{name} {text!r}; valid: a number from 0 on")
    return int(text)
