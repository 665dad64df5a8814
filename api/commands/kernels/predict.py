"""Predict the kernels of a query, or of many calls.

A query is given as to `resolve`: a file, or options such as --model and --arch. With --calls FILE every line holds
a call as AITER sees it (JSON Lines), or an object whose "in" holds one: one JSON line comes out per line that went in;
a line that is wrong gives {"error": …, "line": n}, and exit code 2 in the end. --aiter then counts for calls that name
none.

Exit codes: 0 answered (warnings at most), 1 error findings or no recipe, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from preshuffle.api.commands.kernels.gpu_names import with_gfx_name
from preshuffle.api.commands.kernels.tables import hazard_findings, load_tables
from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import BAD_INPUT, FAILED, OK, UsageError
from preshuffle.api.commands.options.input_file import STDIN
from preshuffle.api.commands.options.query_options import add_query_options, option_of, read_query
from preshuffle.api.commands.screens.decision_view import (
    query_text,
    show_findings,
    show_known,
    stages_of,
    why_unpredicted,
)
from preshuffle.api.commands.screens.screen import Screen, print_json
from preshuffle.api.commands.screens.table import Cell, Column
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import FieldProblem, NoRecipeError, QueryError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.kernels import DispatchCall, KernelChoice, KernelTables, dispatch
from preshuffle.registry.text import field_problems, parse_json
from preshuffle.registry.values.decision import CallDecision, KernelBucket
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.query import Query

TUNED = {True: Cell("yes", "good"), False: Cell("no", "warn"), None: Cell("unknown", "dim")}


class LineError(Frozen):
    """Error of one input line that is not a call."""

    error: str
    line: int


class Forecast(Frozen):
    """Predicted kernels of a query, with findings.

    Attributes:
        engine: what must be said of the query's engine or the version of it.
    """

    query: Query
    engine: tuple[str, ...] = ()
    recipe: str
    call: CallDecision
    tables_digest: str | None
    kernels: tuple[KernelBucket, ...]
    findings: tuple[Finding, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's options."""
    parser.add_argument("--calls", metavar="FILE", help="JSON Lines of calls, - for stdin; instead of a query")
    add_query_options(parser)
    add_book_options(parser)


def run(args: argparse.Namespace) -> int:
    """Predict a query's kernels, or every call of a file."""
    return _predict_query(args) if args.calls is None else _predict_lines(args)


def forecast(registry: Registry, query: Query) -> Forecast:
    """Predict the kernels of a query.

    Raises:
        NoRecipeError: no rule answers, or the GPU's number of compute units is not known.
    """
    decision = registry.resolve(query)
    if not decision.kernels:
        text, missing = why_unpredicted(query, decision, registry.book)
        raise NoRecipeError(text, missing=missing)
    known = {finding.message for finding in decision.findings}
    more = hazard_findings(registry.tables, decision.kernels, registry.book.families)
    return Forecast(
        query=query,
        engine=registry.engine_notes(query),
        recipe=decision.recipe,
        call=decision.call,
        tables_digest=registry.tables.digest if registry.tables else None,
        kernels=decision.kernels,
        findings=(*decision.findings, *(finding for finding in more if finding.message not in known)),
    )


def _predict_query(args: argparse.Namespace) -> int:
    registry = load_registry(args)
    if not (
        args.file or args.hf_config or any(getattr(args, f"query_{name}") is not None for name in Query.model_fields)
    ):
        raise UsageError("kernels predict: no query given; give a file, options such as --model, or --calls FILE")
    answer = forecast(registry, read_query(args, registry))
    if args.json:
        print_json(answer)
    else:
        screen = Screen.of_terminal()
        _show_forecast(screen, answer, registry)
        screen.show()
    return FAILED if any(finding.severity == "error" for finding in answer.findings) else OK


def _show_forecast(screen: Screen, answer: Forecast, registry: Registry) -> None:
    call = answer.call
    screen.line(f"{screen.paint(answer.recipe, 'good')}  {screen.paint(query_text(answer.query), 'bold')}")
    screen.text(f"gate_mode={call.gate_mode}, {call.activation}, {call.quant_type}", style="dim")
    columns = [
        Column("tokens", right=True),
        Column("acts"),
        Column("stage 1, stage 2", wraps=True),
        Column("w13 read as", wraps=True),
        Column("tuned, row", wraps=True),
    ]
    screen.table(columns, [_bucket_row(bucket) for bucket in answer.kernels])
    show_known(screen, registry.book, stages_of(answer.kernels))
    for note in dict.fromkeys((*answer.engine, *(note for bucket in answer.kernels for note in bucket.notes))):
        screen.text(note, style="dim")
    screen.heading("findings", "" if answer.findings else "none")
    show_findings(screen, answer.findings)


def _bucket_row(bucket: KernelBucket) -> tuple[str | Cell, ...]:
    tuned = TUNED[bucket.tuned]
    place = Cell(f"{tuned.text}\n{bucket.source}" if bucket.source else tuned.text, tuned.style)
    if bucket.error:
        return str(bucket.tokens), bucket.activation_dtype or "-", Cell(bucket.error, "bad"), "-", place
    reads = bucket.stage1.reads.get("w13_weight", "not known") if bucket.stage1 else "not known"
    return str(bucket.tokens), bucket.activation_dtype or "unknown", _names(bucket), reads, place


def _names(choice: KernelChoice) -> str:
    stages = [stage.kernel or stage.func for stage in (choice.stage1, choice.stage2) if stage is not None]
    return "\n".join(stages) or "unknown"


def _predict_lines(args: argparse.Namespace) -> int:
    aiter = args.query_aiter
    strange = [name for name in Query.model_fields if name != "aiter" and getattr(args, f"query_{name}") is not None]
    if strange or args.file or args.hf_config or args.book:
        what = option_of(strange[0]) if strange else "a query, --hf-config or --book"
        raise UsageError(f"kernels predict: {what} cannot be combined with --calls; each line contains a complete call")
    if aiter is not None:
        _check_version(aiter)
    tables = load_tables(args)
    wrong = 0
    rows: list[tuple[str | Cell, ...]] = []
    for number, line in _lines(args.calls):
        answer = _answer(line, number, aiter, tables)
        wrong += isinstance(answer, LineError)
        if args.json:
            print_json(answer)
        else:
            rows.append(_row(number, answer))
    if not args.json:
        _show_lines(rows)
    return BAD_INPUT if wrong else OK


def _answer(line: str, number: int, aiter: str | None, tables: KernelTables | None) -> KernelChoice | LineError:
    try:
        value = parse_json(line)
        if isinstance(value, dict) and "in" in value:
            value = value["in"]
        if not isinstance(value, dict):
            return LineError(error=f"a call is a JSON object, found {type(value).__name__}", line=number)
        if aiter is not None and value.get("aiter") is None:
            value = {**value, "aiter": aiter}
        call = DispatchCall.model_validate(with_gfx_name(value))
    except ValidationError as error:
        return LineError(error="; ".join(str(problem) for _, problem in field_problems(error)), line=number)
    except (ValueError, RecursionError) as error:
        return LineError(error=f"not valid JSON: {error}", line=number)
    return dispatch(call, tables)


def _check_version(version: str) -> None:
    try:
        version_key(version)
    except ValueError as error:
        raise QueryError([FieldProblem("--aiter", str(error))]) from None


def _lines(path: str) -> Iterator[tuple[int, str]]:
    try:
        stream: Any = sys.stdin if path == STDIN else open(path, encoding="utf-8")
        with stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise QueryError([FieldProblem(path, f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise QueryError([FieldProblem(path, f"not UTF-8 at byte {error.start}")]) from None
    except ValueError as error:
        raise QueryError([FieldProblem(repr(path), f"cannot be read: {error}")]) from None


def _row(number: int, answer: KernelChoice | LineError) -> tuple[str | Cell, ...]:
    if isinstance(answer, LineError):
        return str(number), "", Cell(answer.error, "bad"), ""
    if answer.error:
        return str(number), answer.activation_dtype or "", Cell(answer.error, "warn"), ""
    return str(number), answer.activation_dtype or "unknown", _names(answer), TUNED[answer.tuned]


def _show_lines(rows: list[tuple[str | Cell, ...]]) -> None:
    screen = Screen.of_terminal()
    columns = [Column("line", right=True), Column("acts"), Column("stage 1, stage 2", wraps=True), Column("tuned")]
    screen.table(columns, rows, indent=0)
    screen.show()
