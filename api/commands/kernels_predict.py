"""One kernel choice per line of calls."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from preshuffle.api.commands.books import chosen_tables
from preshuffle.api.commands.failures import BAD_INPUT, OK
from preshuffle.api.commands.input_file import STDIN
from preshuffle.api.commands.screen import Screen, print_json
from preshuffle.api.table import Cell, Column
from preshuffle.registry.errors import FieldProblem, QueryError
from preshuffle.registry.kernels import DispatchCall, KernelChoice, KernelTables, dispatch
from preshuffle.registry.located import field_problems
from preshuffle.registry.query import Frozen
from preshuffle.registry.versions import version_key


class LineError(Frozen):
    """A line that holds no call."""

    error: str
    line: int


def predict_lines(args: argparse.Namespace) -> int:
    """Print the choice of every call, as JSON lines or as a table."""
    if args.aiter is not None:
        _check_version(args.aiter)
    tables = _tables(args)
    wrong = 0
    rows: list[tuple[str | Cell, ...]] = []
    for number, line in _lines(args.calls):
        answer = _answer(line, number, args.aiter, tables)
        wrong += isinstance(answer, LineError)
        if args.json:
            print_json(answer)
        else:
            rows.append(_row(number, answer))
    if not args.json:
        _show(rows)
    return BAD_INPUT if wrong else OK


def _answer(line: str, number: int, aiter: str | None, tables: KernelTables | None) -> KernelChoice | LineError:
    try:
        value = json.loads(line)
        if isinstance(value, dict) and "in" in value:
            value = value["in"]
        if not isinstance(value, dict):
            return LineError(error=f"a call is a JSON object, found {type(value).__name__}", line=number)
        if aiter is not None and value.get("aiter") is None:
            value = {**value, "aiter": aiter}
        call = DispatchCall.model_validate(value)
    except ValidationError as error:
        return LineError(error="; ".join(str(problem) for _, problem in field_problems(error)), line=number)
    except (ValueError, RecursionError) as error:
        return LineError(error=f"not valid JSON: {error}", line=number)
    return dispatch(call, tables)


def _tables(args: argparse.Namespace) -> KernelTables | None:
    paths = chosen_tables(args)
    if paths is None:
        return None
    return KernelTables.from_installed_aiter() if paths == "auto" else KernelTables.load(paths)


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


def _row(number: int, answer: KernelChoice | LineError) -> tuple[str | Cell, ...]:
    if isinstance(answer, LineError):
        return str(number), "", Cell(answer.error, "bad"), ""
    if answer.error:
        return str(number), answer.activation_dtype or "", Cell(answer.error, "warn"), ""
    stages = [stage.kernel or stage.func for stage in (answer.stage1, answer.stage2) if stage is not None]
    tuned = {True: Cell("yes", "good"), False: Cell("no", "warn"), None: Cell("unknown", "dim")}[answer.tuned]
    return str(number), answer.activation_dtype or "unknown", "\n".join(stages) or "unknown", tuned


def _show(rows: list[tuple[str | Cell, ...]]) -> None:
    screen = Screen.of_terminal()
    columns = [Column("line", right=True), Column("acts"), Column("stage 1, stage 2", wraps=True), Column("tuned")]
    screen.table(columns, rows, indent=0)
    screen.show()
