"""Check an observed deployment: its bytes, its call and its kernels.

An input is an observation (query, applied) or a replica's report (groups: the body of PUT /v1/deployments/{name}), as
JSON or YAML, - for standard input, or a folder of such files. Their JSON Schemas, with an example each:
preshuffle registry schema observation, preshuffle registry schema replica-report.
Exit codes: 0 ok or degraded, 1 mismatch or unsupported, 2 bad input, 3 unknown. Of several inputs the worst one counts:
bad input, then mismatch or unsupported, then unknown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import BAD_INPUT, FAILED, OK, UNKNOWN, UsageError
from preshuffle.api.commands.options.input_file import STDIN
from preshuffle.api.commands.options.observation_file import ObservedPart, expand, read_observed
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.options.query_options import add_query_fields
from preshuffle.api.commands.options.service_option import add_server_option, query_service
from preshuffle.api.commands.screens.check_view import Outcome, show_outcomes, show_report
from preshuffle.api.commands.screens.screen import Screen, print_json
from preshuffle.api.commands.screens.table import printable
from preshuffle.api.fleet import GroupCheck, ReplicaCheck
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import FieldProblem, PreshuffleError, QueryError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.loading import read_lines
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.report import Report, worst

_EXIT: Final = {"ok": OK, "degraded": OK, "mismatch": FAILED, "unsupported": FAILED, "unknown": UNKNOWN}
_WORST: Final = (OK, UNKNOWN, FAILED, BAD_INPUT)


class InputReport(Frozen):
    """Report on one input of a batch.

    Attributes:
        layers: of the group, where the input is a replica's report.
        report: null where the input could not be read; ``error`` says why.
    """

    file: str
    layers: str | None = None
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
    parser.add_argument(
        "inputs", nargs="*", metavar="FILE|FOLDER", help="observations or replicas' reports; - for stdin"
    )
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
    parts = read_observed(file, args, registry)
    reports = [_report(args, part.observation, registry) for part in parts]
    verdict = worst(report.verdict for report in reports)
    if args.json:
        print_json(_answer(parts, reports))
        return _EXIT[verdict]
    screen = Screen.of_terminal()
    for part, report in zip(parts, reports, strict=True):
        _show_part(args, screen, part, report, registry)
    screen.show()
    return _EXIT[verdict]


def _answer(parts: Sequence[ObservedPart], reports: Sequence[Report]) -> Report | ReplicaCheck:
    """Return the report of an observation, or those of a replica's groups."""
    groups = [
        GroupCheck(layers=part.layers, report=report)
        for part, report in zip(parts, reports, strict=True)
        if part.layers is not None
    ]
    return ReplicaCheck.of(tuple(groups)) if groups else reports[0]


def _show_part(
    args: argparse.Namespace, screen: Screen, part: ObservedPart, report: Report, registry: Registry
) -> None:
    if part.layers is not None:
        screen.heading(f"layers {part.layers}")
    show_report(screen, part.observation.query, report)
    for line in read_lines(registry.book, report.reads):
        screen.text(f"kernels read {line}", style="dim")
    if args.decide:
        from preshuffle.api.commands.screens.decision_view import show_decision

        screen.heading("what the registry decides", "" if report.decision else "it has no recipe for this query")
        if report.decision:
            show_decision(screen, part.observation.query, report.decision, registry)


def _check_all(args: argparse.Namespace, files: list[str], registry: Registry) -> int:
    outcomes = []
    for outcome in chain.from_iterable(_outcomes(args, file, registry) for file in files):
        outcomes.append(outcome)
        if args.json:
            entry = InputReport(
                file=outcome.file, layers=outcome.layers, report=outcome.report, error=outcome.error or None
            )
            left_out = {"error"} if outcome.report else {"report"}
            left_out |= set() if outcome.layers else {"layers"}
            print(entry.model_dump_json(exclude=left_out), flush=True)
        elif outcome.error:
            print(printable(f"preshuffle: {outcome.error}"), file=sys.stderr)
    if not args.json:
        screen = Screen.of_terminal()
        show_outcomes(screen, outcomes)
        screen.show()
    codes = [_EXIT[outcome.report.verdict] if outcome.report else BAD_INPUT for outcome in outcomes]
    return max(codes, key=_WORST.index)


def _outcomes(args: argparse.Namespace, file: str, registry: Registry) -> Iterator[Outcome]:
    """Yield the outcome of an observation, or of each group of a replica's report."""
    name = "<stdin>" if file == STDIN else file
    try:
        for part in read_observed(file, args, registry):
            yield Outcome(name, _report(args, part.observation, registry), layers=part.layers)
    except PreshuffleError as error:
        yield Outcome(name, error=str(error))


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
