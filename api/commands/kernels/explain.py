"""Explain one dispatch of AITER step by step.

The dispatch is that of a query at one token count, or of a call as AITER sees it.

A call is given as JSON, as a file (- for stdin), or as pairs: --call gfx=gfx950 cu_num=256 tokens=16 env.CU_NUM=80 …

Exit codes: 0 explained, 1 AITER raises for the call or no recipe answers, 2 bad input.
"""

from __future__ import annotations

import argparse
from typing import Any

from pydantic import ValidationError

from preshuffle.api.commands.kernels.gpu_names import with_gfx_name
from preshuffle.api.commands.kernels.predict import TUNED
from preshuffle.api.commands.kernels.tables import hazard_findings, load_tables
from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import FAILED, OK, UsageError
from preshuffle.api.commands.options.input_file import read_document
from preshuffle.api.commands.options.query_options import add_query_options, option_of, read_query
from preshuffle.api.commands.screens.decision_view import query_text, show_findings, show_known, why_unpredicted
from preshuffle.api.commands.screens.screen import Screen, print_json
from preshuffle.api.commands.screens.table import Cell, Column
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import FieldProblem, NoRecipeError, QueryError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.kernels import DispatchCall, KernelTables, StageTrace, Trace, says, trace
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve import call_of_decision
from preshuffle.registry.text import field_problems, parse_json
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.query import Query

_Dispatch = tuple[str, str | None, tuple[str, ...], DispatchCall, KernelTables | None, Book | None]


class ExplainedKernel(Frozen):
    """Trace of one dispatch, with findings on the table row used.

    Attributes:
        engine: what must be said of the query's engine or the version of it.
    """

    recipe: str | None = None
    engine: tuple[str, ...] = ()
    trace: Trace
    findings: tuple[Finding, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's options."""
    text = "a call instead of a query: JSON, a file, or FIELD=VALUE …"
    parser.add_argument("--call", nargs="+", metavar="CALL", help=text)
    add_query_options(parser)
    add_book_options(parser)


def run(args: argparse.Namespace) -> int:
    """Explain the dispatch."""
    subject, recipe, engine, call, tables, book = _of_call(args) if args.call else _of_query(args)
    families = book.families if book is not None else None
    found = trace(call, tables, families)
    findings = tuple(hazard_findings(tables, [found.choice], families))
    answer = ExplainedKernel(recipe=recipe, engine=engine, trace=found, findings=findings)
    if args.json:
        print_json(answer)
    else:
        screen = Screen.of_terminal()
        show_trace(screen, subject, answer)
        show_known(screen, book or Registry.default().book, (found.choice.stage1, found.choice.stage2))
        screen.show()
    return FAILED if found.choice.error else OK


def _of_query(args: argparse.Namespace) -> _Dispatch:
    registry = load_registry(args)
    query = read_query(args, registry)
    if "tokens" in query.model_fields_set and len(query.tokens) > 1:
        raise UsageError("kernels explain: exactly one token count is needed, for example --tokens 256")
    decision = registry.resolve(query)
    call = call_of_decision(decision, query, registry.book, query.tokens[0])
    if call is None:
        text, missing = why_unpredicted(query, decision, registry.book)
        raise NoRecipeError(text, missing=missing)
    engine = registry.engine_notes(query)
    return query_text(query), decision.recipe, engine, call, registry.tables, registry.book


def _of_call(args: argparse.Namespace) -> _Dispatch:
    query_options = [name for name in Query.model_fields if getattr(args, f"query_{name}") is not None]
    if query_options or args.file or args.hf_config or args.book:
        what = option_of(query_options[0]) if query_options else "a query, --hf-config or --book"
        raise UsageError(f"kernels explain: {what} cannot be combined with --call, which contains the complete call")
    try:
        call = DispatchCall.model_validate(with_gfx_name(_call_fields(args.call)))
    except ValidationError as error:
        raise QueryError(
            [FieldProblem(f"--call {p.field}", p.message, p.valid) for _, p in field_problems(error)]
        ) from None
    return "a call", None, (), call, load_tables(args), None


def _call_fields(given: list[str]) -> dict[str, Any]:
    if len(given) == 1 and given[0].lstrip().startswith("{"):
        try:
            value = parse_json(given[0])
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--call: not valid JSON: {error}") from None
    elif len(given) == 1 and "=" not in given[0]:
        value = read_document(given[0]).value
    else:
        value = {}
        for pair in given:
            name, equals, text = pair.partition("=")
            if not equals or not name:
                raise UsageError(f"--call {pair!r}; valid: NAME=VALUE")
            if name.startswith("env."):
                value.setdefault("env", {})[name[4:]] = text
            else:
                value[name] = text
    fields: dict[str, Any] = value["in"] if isinstance(value.get("in"), dict) else value
    return fields


def show_trace(screen: Screen, subject: str, answer: ExplainedKernel) -> None:
    """Show a dispatch step by step."""
    found, choice = answer.trace, answer.trace.choice
    title = f"{subject}, {found.call.tokens} token{'' if found.call.tokens == 1 else 's'}"
    screen.line(f"{screen.paint(answer.recipe or '', 'good')}  {screen.paint(title, 'bold')}".strip())
    behaviour = found.behaviour
    screen.pairs(
        [
            (
                "AITER",
                f"{found.call.aiter or 'none given'}, answered as {behaviour['version']}: {behaviour['features']}",
            ),
            *(("engine", note) for note in answer.engine),
            ("tokens", found.padding),
            ("activations", found.activation),
        ]
    )
    screen.heading("lookup", f"{behaviour['key']}; {behaviour['act_type']}")
    screen.text("  ".join(f"{name}={value}" for name, value in found.key.items()))
    tuned = TUNED[choice.tuned]
    screen.table([Column(), Column(wraps=True)], [("row", Cell(found.lookup, tuned.style))])
    rows = [
        (Cell(row.source, "" if row.why_not else "good"), row.kernel1 or "(no name)", row.why_not or "this row")
        for row in found.considered
    ]
    screen.table([Column("rows considered", wraps=True), Column("kernel", wraps=True), Column("", wraps=True)], rows)
    screen.heading("rule", found.rule)
    screen.text(found.because)
    for name in found.passed:
        screen.text(f"passed over {name}: {says(name)}", style="dim")
    for stage in found.stages:
        _show_stage(screen, stage)
    if choice.error:
        screen.heading("AITER raises")
        screen.text(choice.error, style="bad")
    if choice.notes:
        screen.heading("notes")
        for note in choice.notes:
            screen.text(note)
    if answer.findings:
        screen.heading("findings")
        show_findings(screen, answer.findings)


def _show_stage(screen: Screen, stage: StageTrace) -> None:
    screen.heading(f"stage {stage.stage}", stage.func)
    reads = ", ".join(f"{role} as {layout}" for role, layout in stage.reads.items())
    name = "  ".join(f"{group}={text.strip('_')}" for group, text in stage.encodes.items())
    pairs = [
        ("kernel", stage.kernel or "picked in C++ by heuristic"),
        ("family", stage.family or "not known"),
        ("its name", name),
        ("reads", reads or "not known"),
        ("rows of w13", stage.row_order),
        ("activations", stage.activation),
        ("ignores", ", ".join(stage.ignores)),
    ]
    screen.pairs([(label, text) for label, text in pairs if text])
    for dropped in stage.drops:
        screen.text(f"drops {dropped}, which this call passes, silently", style="warn")
