"""List a service's deployments, the worst first; show or change one.

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

from preshuffle.api.commands.deployments.marks import Request, add_mark_options, requested_changes
from preshuffle.api.commands.options.failures import FAILED, OK, UsageError
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.options.service_option import ServiceError, add_service_options, send_request
from preshuffle.registry.base.errors import PreshuffleError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.suggestions import suggestion

if TYPE_CHECKING:
    from pydantic import BaseModel

_WRONG: Final = ("mismatch", "unsupported")
_FILTERS: Final = {
    "node": "a replica on one of these machines",
    "model": "a replica of one of these models",
    "arch": "a replica on one of these GPUs",
    "engine": "a replica in one of these engines (name or name@version)",
    "code": "a finding of one of these codes",
    "owner": "one of these owners",
}
_SWITCHES: Final = {
    "silenced": "silenced ones",
    "incomplete": "those with a replica of whose pipeline stages have not reported",
}
_PARAMS: Final = ("state", *_FILTERS, "label", "sort", "group_by")
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
    groups: tuple[dict[str, Any], ...] | None = Field(default=None, description="with --group-by, DeploymentGroup")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("name", nargs="?", help="the deployment to show; without it, a list of all")
    _add_list_options(parser)
    parser.add_argument("--history", action="store_true", help="show what changed: of one deployment, or of everything")
    add_mark_options(parser)
    add_service_options(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def _add_list_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("list", "several values: commas between them; a trailing * is the rest of a name")
    group.add_argument("--state", metavar="STATE,…", help="only deployments in one of these states")
    for option, what in _FILTERS.items():
        group.add_argument(f"--{option}", metavar="VALUE,…", help=f"only those with {what}")
    group.add_argument("--label", metavar="KEY[=VALUE]", action="append", help="only those with this label; repeatable")
    for option, what in _SWITCHES.items():
        group.add_argument(f"--{option}", action=argparse.BooleanOptionalAction, help=f"only {what}, or only others")
    group.add_argument(
        "--sort",
        metavar="BY",
        help="state (the worst first, then the one longest in it), name, since, seen, node, model, arch, engine, code, "
        "owner or label:KEY; --sort=-BY is the other way round",
    )
    group.add_argument("--group-by", metavar="BY", help="count them by state, node, …, owner or label:KEY, too")


def run(args: argparse.Namespace) -> int:
    """List deployments, show or change one, or show the history."""
    requests = requested_changes(args)
    filters = [option for option in (*_PARAMS, *_SWITCHES) if getattr(args, option) is not None]
    if args.name and filters:
        option = filters[0].replace("_", "-")
        raise UsageError(f"deployments: --{option} filters the list and cannot be combined with a deployment's name")
    if requests:
        return _change(args, requests)
    return _history(args) if args.history else _one(args) if args.name else _all(args)


def _change(args: argparse.Namespace, requests: Sequence[Request]) -> int:
    """Send changes, then show the deployment where it is still there."""
    for request in requests:
        more = {"json": dict(request.body)} if request.body is not None else {}
        params = {"params": dict(request.params)} if request.params else {}
        _of_one(args, f"{_path(args.name)}{request.path}", request.method, **more, **params)
    if args.forget and args.replica is None:
        if not args.json:
            print(f"{args.name} is forgotten until it reports again")
        return OK
    _one(args)
    return OK


def _all(args: argparse.Namespace) -> int:
    from preshuffle.api.commands.screens.deployments_view import show_list

    pages = list(_pages(args))
    deployments = tuple(one for page in pages for one in page["deployments"])
    report = DeploymentsReport(deployments=deployments, groups=pages[0].get("groups"))
    _out(args, report, lambda screen: show_list(screen, report.deployments, report.groups))
    return FAILED if any(one["verdict"] in _WRONG for one in report.deployments) else OK


def _pages(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    given = {name: getattr(args, name) for name in _PARAMS}
    params: dict[str, Any] = {"limit": _PAGE, **{name: value for name, value in given.items() if value}}
    params |= {name: str(value).lower() for name in _SWITCHES if (value := getattr(args, name)) is not None}
    while True:
        page = json.loads(send_request(args, "GET", "/v1/deployments", params=params))
        yield page
        if not page["next"]:
            return
        params |= {"cursor": page["next"], "group_by": ""}


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


def _of_one(args: argparse.Namespace, path: str, method: str = "GET", **request: Any) -> bytes:
    """Request something of the deployment that is named.

    Raises:
        UnknownDeploymentError: the service knows none of this name.
    """
    try:
        return send_request(args, method, path, **request)
    except ServiceError as error:
        if error.kind != "unknown-deployment":
            raise
        args.sort = "name"
        names = [one["name"] for page in islice(_pages(args), _COMPARED // _PAGE) for one in page["deployments"]]
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
