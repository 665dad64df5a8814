"""Plan a rollout: what another book, tables or AITER would change.

The overlays that --book names take the place of all that the service uses now.
Exit codes: 0 no deployment gets worse, 1 at least one gets a worse verdict, 2 bad input, 3 the service does not answer.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from preshuffle.api.commands.options.failures import FAILED, OK, UsageError
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.options.service_option import add_service_options, send_request
from preshuffle.registry.base.errors import FieldProblem, QueryError

if TYPE_CHECKING:
    pass

_TIMEOUT_S: Final = 600.0
"""The service may compute for five minutes, after other plans."""
_YAML: Final = ("*.yaml", "*.yml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--book", action="append", metavar="DIR", help="candidate overlay; repeatable, later ones on top"
    )
    parser.add_argument(
        "--tables", action="append", metavar="PATH@VERSION", help="candidate kernel tables of one AITER; repeatable"
    )
    parser.add_argument("--aiter", metavar="VERSION", help="candidate AITER, for every deployment")
    parser.add_argument("--deployments", metavar="GLOB", default="*", help="which deployments (default: all)")
    add_service_options(parser, _TIMEOUT_S)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Request the plan and show it."""
    body = send_request(args, "POST", "/v1/plan", json=_candidate(args))
    from preshuffle.api.commands.screens.plan_view import show_plan
    from preshuffle.api.commands.screens.screen import Screen, print_json
    from preshuffle.api.rollout import Plan

    plan = Plan.model_validate_json(body)
    if args.json:
        print_json(plan)
    else:
        screen = Screen.of_terminal()
        show_plan(screen, plan)
        screen.show()
    return FAILED if plan.worse else OK


def _candidate(args: argparse.Namespace) -> dict[str, Any]:
    """Read the candidate's files into a request body.

    Raises:
        UsageError: there is nothing to plan.
        QueryError: a file cannot be read.
    """
    candidate: dict[str, Any] = {"deployments": args.deployments}
    if args.book is not None:
        candidate["books"] = [_overlay(Path(path)) for path in args.book]
    if args.tables is not None:
        candidate["tables"] = {}
        for path in args.tables:
            version, files = _tables(path)
            candidate["tables"].setdefault(version, {}).update(files)
    if args.aiter is not None:
        candidate["aiter"] = args.aiter
    if len(candidate) == 1:
        raise UsageError("plan: no candidate given; give --book DIR, --tables PATH@VERSION or --aiter VERSION")
    return candidate


def _overlay(path: Path) -> dict[str, str]:
    files = sorted(file for glob in _YAML for file in path.glob(glob)) if path.is_dir() else [path]
    if not files:
        raise QueryError([FieldProblem(str(path), "no *.yaml in this folder", ("a folder with *.yaml files",))])
    return {str(file): _read(file) for file in files}


def _tables(path: str) -> tuple[str, dict[str, str]]:
    place, _, version = path.rpartition("@")
    if not place:
        raise UsageError(f"plan: --tables {path} names no AITER; valid: {path}@VERSION, as in configs@0.1.20")
    folder = Path(place)
    if not folder.is_dir():
        return version, {folder.name: _read(folder)}
    files = sorted(file for file in folder.rglob("*.csv") if "untuned" not in file.name and "tuned_f" in file.name)
    if not files:
        raise QueryError([FieldProblem(place, "no kernel table in this folder", ("AITER's configs/, or one CSV",))])
    return version, {file.relative_to(folder).as_posix(): _read(file) for file in files}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise QueryError([FieldProblem(str(path), f"cannot be read: {error.strerror or error}")]) from None
    except UnicodeDecodeError as error:
        raise QueryError([FieldProblem(str(path), f"not UTF-8 at byte {error.start}")]) from None
