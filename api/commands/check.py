"""Check an observed deployment: its bytes, its call and its kernels.

An input is an observation (query, applied) as JSON or YAML, - for standard input, or a folder of such files.
Exit codes: 0 ok or degraded, 1 mismatch or unsupported, 2 bad input, 3 unknown. Of several inputs the worst one counts:
bad input, then mismatch or unsupported, then unknown.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import BAD_INPUT, FAILED, OK, UNKNOWN, UsageError
from preshuffle.api.commands.options.input_file import STDIN
from preshuffle.api.commands.options.observation_file import expand, read_observation
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.options.query_options import add_query_fields
from preshuffle.api.commands.options.service_option import add_server_option, query_service
from preshuffle.api.commands.screens.check_view import Outcome, show_outcomes, show_report
from preshuffle.api.commands.screens.screen import Screen, print_json
from preshuffle.api.commands.screens.table import printable
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import FieldProblem, PreshuffleError, QueryError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.report import Report

_EXIT: Final = {"ok": OK, "degraded": OK, "mismatch": FAILED, "unsupported": FAILED, "unknown": UNKNOWN}
_WORST: Final = (OK, UNKNOWN, FAILED, BAD_INPUT)


class InputReport(Frozen):
    """Report on one input of a batch.

    Attributes:
        report: null where the input could not be read; ``error`` says why.
    """

    file: str
    report: Report | None = None
    error: str | None = None


class CaseScore(Frozen):
    """Result of one incident case, with its deviations."""

    id: str
    verdict: str
    codes: tuple[str, ...]
    problems: tuple[str, ...]


class ScoreReport(Frozen):
    """Results of a folder of incident cases."""

    cases: tuple[CaseScore, ...]
    passed: int
    ok: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("inputs", nargs="*", metavar="FILE|FOLDER", help="observations; - for stdin")
    parser.add_argument("--decide", action="store_true", help="also show what the registry decides for the query")
    other = parser.add_argument_group("instead of a check").add_mutually_exclusive_group()
    other.add_argument("--explain", metavar="CODE", help="what a finding code means, why it matters, how to fix it")
    other.add_argument("--score", metavar="DIR", help="check a folder of incident cases; 0 where all are as expected")
    add_query_fields(parser)
    add_book_options(parser)
    add_server_option(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check observations, explain a finding code, or score incident cases."""
    if args.explain is not None or args.score is not None:
        if args.inputs:
            raise UsageError("--explain and --score cannot be combined with an observation")
        return _explain(args) if args.explain is not None else _score(args)
    if not args.inputs:
        raise UsageError("no observation given; give a file, a folder, or - for standard input")
    files = list(expand(args.inputs))
    if files.count(STDIN) > 1:
        raise UsageError("standard input can be read once only")
    registry = load_registry(args)
    several = len(files) > 1 or files != args.inputs
    return _check_all(args, files, registry) if several else _check(args, files[0], registry)


def _check(args: argparse.Namespace, file: str, registry: Registry) -> int:
    observation = read_observation(file, args, registry)
    report = _report(args, observation, registry)
    if args.json:
        print_json(report)
        return _EXIT[report.verdict]
    screen = Screen.of_terminal()
    show_report(screen, observation.query, report)
    if args.decide:
        from preshuffle.api.commands.screens.decision_view import show_decision

        screen.heading("what the registry decides", "" if report.decision else "it has no recipe for this query")
        if report.decision:
            show_decision(screen, observation.query, report.decision, registry)
    screen.show()
    return _EXIT[report.verdict]


def _check_all(args: argparse.Namespace, files: list[str], registry: Registry) -> int:
    outcomes = []
    for file in files:
        outcome = _outcome(args, file, registry)
        outcomes.append(outcome)
        if args.json:
            entry = InputReport(file=outcome.file, report=outcome.report, error=outcome.error or None)
            print(entry.model_dump_json(exclude={"error"} if outcome.report else {"report"}), flush=True)
        elif outcome.error:
            print(printable(f"preshuffle: {outcome.error}"), file=sys.stderr)
    if not args.json:
        screen = Screen.of_terminal()
        show_outcomes(screen, outcomes)
        screen.show()
    codes = [_EXIT[outcome.report.verdict] if outcome.report else BAD_INPUT for outcome in outcomes]
    return max(codes, key=_WORST.index)


def _outcome(args: argparse.Namespace, file: str, registry: Registry) -> Outcome:
    name = "<stdin>" if file == STDIN else file
    try:
        return Outcome(name, _report(args, read_observation(file, args, registry), registry))
    except PreshuffleError as error:
        return Outcome(name, error=str(error))


def _report(args: argparse.Namespace, observation: Observation, registry: Registry) -> Report:
    if not args.server:
        return registry.check(observation, decide=args.decide)
    if args.decide:
        raise UsageError("--decide cannot be combined with --server; preshuffle resolve --server returns the decision")
    return query_service(args, lambda client: client.check(observation), registry)


def _explain(args: argparse.Namespace) -> int:
    from preshuffle.registry.check import describe_code

    code = describe_code(args.explain)
    if args.json:
        print_json(code)
        return OK
    screen = Screen.of_terminal()
    style = "bad" if code.severity == "error" else "warn"
    screen.line(f"{screen.paint(code.code, style)}  {screen.paint(code.severity, 'dim')}")
    screen.text(code.says)
    for title, text in (("why it matters", code.why), ("how to fix it", code.mend)):
        screen.heading(title)
        screen.text(text)
    screen.heading("seen in")
    for url in code.evidence:
        screen.line(f"  {url}")
    screen.show()
    return OK


def _score(args: argparse.Namespace) -> int:
    from preshuffle.registry.incidents import score

    folder = Path(args.score)
    if not any(folder.glob("*.json")):
        raise QueryError([FieldProblem(args.score, "no incident case (*.json) in this folder")])
    tally = score(folder, load_registry(args))
    if args.json:
        cases = (CaseScore(id=s.id, verdict=s.verdict, codes=s.codes, problems=s.problems) for s in tally.scores)
        print_json(ScoreReport(cases=tuple(cases), passed=tally.passed, ok=tally.ok))
    else:
        print(tally)
    return OK if tally.ok else FAILED
