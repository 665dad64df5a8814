"""List a service's deployments, or show one with findings and history.

Exit codes: 0 fine, 1 a deployment that is shown is mismatch or unsupported, or is unknown, 2 bad input,
3 the service does not answer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from pydantic import Field

from preshuffle.api.commands.options.failures import FAILED, OK, UsageError
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.options.service_option import ServiceError, add_service_options, send_request
from preshuffle.registry.base.errors import PreshuffleError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.suggestions import suggestion

if TYPE_CHECKING:
    from pydantic import BaseModel

_WRONG: Final = ("mismatch", "unsupported")
_PAGE: Final = 500
_COMPARED: Final = 5000
"""Names that an unknown one is compared with."""


class UnknownDeploymentError(PreshuffleError, LookupError):
    """Error for a deployment that the service does not know."""

    exit_code = FAILED

    def __init__(self, name: str, names: Sequence[str], problem: Mapping[str, Any]) -> None:
        """Name the nearest known deployments, or all if few."""
        super().__init__(f"no deployment is called {name!r}{suggestion(name, names) or '; the service knows none'}")
        self.problem = {**problem, "detail": str(self)}


class DeploymentsReport(Frozen):
    """Deployments as ``GET /v1/deployments`` returns them."""

    deployments: tuple[dict[str, Any], ...] = Field(description="DeploymentSummary of the service's API")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("name", nargs="?", help="the deployment to show; without it, a list of all")
    parser.add_argument("--state", metavar="STATE,…", help="only deployments in one of these states")
    parser.add_argument("--history", action="store_true", help="show what changed: of one deployment, or of everything")
    add_service_options(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List deployments, show one, or show the history."""
    if args.name and args.state:
        raise UsageError("deployments: --state filters the list and cannot be combined with a deployment's name")
    return _history(args) if args.history else _one(args) if args.name else _all(args)


def _all(args: argparse.Namespace) -> int:
    from preshuffle.api.commands.screens.deployments_view import show_list

    report = DeploymentsReport(deployments=tuple(_pages(args)))
    _out(args, report, lambda screen: show_list(screen, report.deployments))
    return FAILED if any(one["verdict"] in _WRONG for one in report.deployments) else OK


def _pages(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    params: dict[str, Any] = {"limit": _PAGE, **({"state": args.state} if args.state else {})}
    while True:
        page = json.loads(send_request(args, "GET", "/v1/deployments", params=params))
        yield from page["deployments"]
        if not page["next"]:
            return
        params["cursor"] = page["next"]


def _one(args: argparse.Namespace) -> int:
    from preshuffle.api.answers import DeploymentView
    from preshuffle.api.commands.screens.deployments_view import show_one

    view = DeploymentView.model_validate_json(_of_one(args, _path(args.name)))
    _out(args, view, lambda screen: show_one(screen, view))
    return FAILED if view.verdict in _WRONG else OK


def _history(args: argparse.Namespace) -> int:
    from preshuffle.api.commands.screens.deployments_view import show_events
    from preshuffle.api.store import Events

    path = f"{_path(args.name)}/history" if args.name else "/v1/history"
    events = Events.model_validate_json(_of_one(args, path) if args.name else send_request(args, "GET", path))
    _out(args, events, lambda screen: show_events(screen, events))
    return OK


def _of_one(args: argparse.Namespace, path: str) -> bytes:
    """Request something of the deployment that is named.

    Raises:
        UnknownDeploymentError: the service knows none of this name.
    """
    try:
        return send_request(args, "GET", path)
    except ServiceError as error:
        if error.kind != "unknown-deployment":
            raise
        args.state = None
        names = [one["name"] for one in islice(_pages(args), _COMPARED)]
        raise UnknownDeploymentError(args.name, names, error.problem) from None


def _path(name: str) -> str:
    return f"/v1/deployments/{quote(name, safe='')}"


def _out(args: argparse.Namespace, model: BaseModel, show: Any) -> None:
    from preshuffle.api.commands.screens.screen import Screen, print_json

    if args.json:
        print_json(model)
        return
    screen = Screen.of_terminal()
    show(screen)
    screen.show()
