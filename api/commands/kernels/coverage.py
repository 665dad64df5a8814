"""Show which token counts and TP sizes of a model are tuned.

Exit codes: 0 shown, 1 no recipe answers, 2 bad input.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from typing import Literal

from preshuffle.api.commands.kernels.book_deployments import ACTIVATIONS, TP, BookDeployment, book_deployments
from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import OK, UsageError
from preshuffle.api.commands.screens.screen import Screen, print_json, short_digest
from preshuffle.api.commands.screens.table import Cell, Column, Row
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import NoRecipeError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.ranges import range_text
from preshuffle.registry.base.suggestions import suggestion
from preshuffle.registry.kernels import KernelChoice, TokenBucket, reachable_buckets
from preshuffle.registry.layer import REACH
from preshuffle.registry.values.query import Query

State = Literal["tuned", "heuristic", "unknown", "raises"]
_MARKS: dict[State, tuple[str, str]] = {
    "tuned": ("●", "good"),
    "heuristic": ("○", "warn"),
    "unknown": ("·", "dim"),
    "raises": ("✗", "bad"),
}
_MEANINGS: dict[State, str] = {
    "tuned": "a row of the tables",
    "heuristic": "no row: AITER's heuristic",
    "unknown": "no tables: AITER's heuristic, if it has no row",
    "raises": "AITER raises",
}


class KernelPair(Frozen):
    """Kernel families of both stages, and the activation dtype."""

    activation_dtype: str | None
    family1: str | None
    family2: str | None
    error: str | None = None


class CoverageCell(Frozen):
    """Coverage at one TP size.

    ``kernels`` is an index into the report's legend.
    """

    tp: int
    state: State
    kernels: int


class TokenRange(Frozen):
    """A range of token counts with equal cells.

    ``hi`` is null where the range has no end.
    """

    lo: int
    hi: int | None
    cells: tuple[CoverageCell, ...]


class Grid(Frozen):
    """Coverage of one recipe on one GPU: token counts × TP sizes."""

    arch: str
    recipe: str
    gate_mode: str
    ranges: tuple[TokenRange, ...]


class Coverage(Frozen):
    """Coverage of a model."""

    model: str
    tables_digest: str | None
    legend: tuple[KernelPair, ...]
    grids: tuple[Grid, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's options."""
    parser.add_argument("model", metavar="MODEL", help="a Hugging Face id that the book knows")
    parser.add_argument("--arch", action="append", metavar="GPU", help="repeatable (else all of the book's)")
    parser.add_argument(
        "--tp", default=",".join(map(str, TP)), metavar="N,N", help="tensor-parallel sizes (%(default)s)"
    )
    parser.add_argument("--activation-dtype", choices=ACTIVATIONS, help="what the checkpoint wants (else each of them)")
    parser.add_argument("--aiter", metavar="VERSION", help="AITER's version")
    parser.add_argument("--cu-num", metavar="N", help="compute units of the GPU (or of its partition)")
    add_book_options(parser)


def run(args: argparse.Namespace) -> int:
    """Compute and show the coverage."""
    registry = load_registry(args)
    fields = {"activation_dtype": args.activation_dtype, "cu_num": args.cu_num}
    given = {name: value for name, value in fields.items() if value is not None}
    for name in args.arch or ():
        if registry.book.arch_names.find(name) is None:
            raise NoRecipeError(registry.book.arch_names.unknown(name))
    found = list(
        book_deployments(
            registry, [args.model], archs=args.arch, sizes=_sizes(args.tp), versions=(args.aiter,), **given
        )
    )
    if not found:
        archs = args.arch or list(registry.book.archs)
        if len(archs) == 1:
            registry.resolve(Query.parse({"model": args.model, "arch": archs[0], **given}), kernels=False)  # says why
        if registry.book.model_names.find(args.model) is None:
            raise NoRecipeError(f"unknown model {args.model!r}{suggestion(args.model, registry.book.models)}")
        raise NoRecipeError(f"no rule answers for {args.model} on {', '.join(archs)}")
    answer = coverage(registry, found, args.aiter)
    if args.json:
        print_json(answer)
    else:
        screen = Screen.of_terminal()
        _show(screen, answer)
        screen.show()
    return OK


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and 1 <= int(part[:5]) <= 4096 for part in parts):
        raise UsageError(f"--tp {text!r}; valid: comma-separated sizes from 1 to 4096, for example 1,2,4,8")
    return list(dict.fromkeys(int(part) for part in parts))


def coverage(registry: Registry, found: list[BookDeployment], aiter: str | None = None) -> Coverage:
    """Compute the coverage of deployments at every token count."""
    legend: dict[KernelPair, int] = {}
    grids = []
    for arch, recipe in dict.fromkeys((item.arch, item.recipe) for item in found):
        same_recipe = [item for item in found if (item.arch, item.recipe) == (arch, recipe)]
        buckets_by_tp = [
            (
                item.tp,
                reachable_buckets(
                    item.call.model_copy(update={"aiter": aiter}), registry.tables, REACH, registry.book.families
                ),
            )
            for item in same_recipe
        ]
        ranges: list[TokenRange] = []
        for lo, following in pairwise([*sorted({bucket.lo for _, buckets in buckets_by_tp for bucket in buckets}), 0]):
            cells = tuple(_cell(tp, _at(buckets, lo), legend) for tp, buckets in buckets_by_tp)
            hi = following - 1 if following else None
            if ranges and ranges[-1].cells == cells:
                ranges[-1] = ranges[-1].model_copy(update={"hi": hi})
            else:
                ranges.append(TokenRange(lo=lo, hi=hi, cells=cells))
        grids.append(Grid(arch=arch, recipe=recipe, gate_mode=same_recipe[0].call.gate_mode, ranges=tuple(ranges)))
    digest = registry.tables.digest if registry.tables else None
    return Coverage(model=found[0].model, tables_digest=digest, legend=tuple(legend), grids=tuple(grids))


def _at(buckets: list[TokenBucket], tokens: int) -> KernelChoice:
    return next(bucket.choice for bucket in reversed(buckets) if bucket.lo <= tokens)


def _cell(tp: int, choice: KernelChoice, legend: dict[KernelPair, int]) -> CoverageCell:
    kernels = KernelPair(
        activation_dtype=choice.activation_dtype,
        family1=choice.stage1 and (choice.stage1.family or choice.stage1.func),
        family2=choice.stage2 and (choice.stage2.family or choice.stage2.func),
        error=choice.error,
    )
    state: State = "unknown" if choice.tuned is None else "tuned" if choice.tuned else "heuristic"
    if choice.error:
        state = "raises"
    return CoverageCell(tp=tp, state=state, kernels=legend.setdefault(kernels, len(legend)))


def _show(screen: Screen, answer: Coverage) -> None:
    tables = f"tables {short_digest(answer.tables_digest)}" if answer.tables_digest else "no tables"
    screen.line(f"{screen.paint(answer.model, 'bold')}  {screen.paint(tables, 'dim')}")
    for grid in answer.grids:
        screen.heading(f"{grid.arch}  {grid.recipe}", f"gate_mode={grid.gate_mode}")
        columns = [Column("tokens", right=True)]
        columns += [Column(f"tp {cell.tp}") for cell in grid.ranges[0].cells]
        rows: list[Row] = []
        for item in grid.ranges:
            cells = [
                Cell(f"{_MARKS[cell.state][0]} {_letter(cell.kernels)}", _MARKS[cell.state][1]) for cell in item.cells
            ]
            rows.append((_range(item), *cells))
        screen.table(columns, rows)
    screen.heading("legend")
    used = dict.fromkeys(cell.state for grid in answer.grids for item in grid.ranges for cell in item.cells)
    screen.table([Column(), Column()], [(Cell(*_MARKS[state]), _MEANINGS[state]) for state in used])
    named: list[Row] = [
        (_letter(index), kernels.activation_dtype or "-", _families(kernels))
        for index, kernels in enumerate(answer.legend)
    ]
    screen.table([Column(), Column("acts"), Column("stage 1 → stage 2", wraps=True)], named)


def _families(kernels: KernelPair) -> str:
    if kernels.error:
        return kernels.error
    return " → ".join(family for family in (kernels.family1, kernels.family2) if family)


def _range(item: TokenRange) -> str:
    return range_text(item.lo, item.hi, "–")


def _letter(index: int) -> str:
    first, second = divmod(index, 26)
    return (chr(ord("A") + first - 1) if first else "") + chr(ord("A") + second)
