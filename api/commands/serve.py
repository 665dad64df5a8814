"""Serve the HTTP API and the pages for operators.

Every option is also read from the environment, as PRESHUFFLE_HOST, PRESHUFFLE_PORT, PRESHUFFLE_DB and so on.
"""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from typing import Any, Final, Union, get_args, get_origin

from preshuffle.api.commands.options.failures import OK, needs_extra
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.screens.screen import print_json
from preshuffle.api.settings import PREFIX, Settings

_PREFIX: Final = "setting_"
_HELP: Final = {
    "host": "where to listen",
    "port": "0 takes a free one",
    "db": "the store",
    "book": "overlay folder or file; repeatable (':' between in the environment)",
    "tables": "kernel tables, or auto; repeatable (':' between in the environment)",
    "tokens": "file of bearer tokens; needed on any host but loopback",
    "reads": "open, or closed: reading needs a token too",
    "management_port": "serve /healthz, /readyz and /metrics there; 0 takes a free one",
    "head_seconds": "how long a request's headers may take to arrive",
    "log": "text, or json: one object a line",
    "log_level": "debug, info, warning or error: lines below it are left out",
    "history_rows": "changes that the history keeps, of all deployments together",
    "history_days": "days for which it keeps them",
    "max_replicas": "replicas that may be stored in all",
    "max_mib": "MiB that their reports may take in all",
    "token_replicas": "replicas that one token may have stored",
    "token_mib": "MiB that their reports may take",
    "public_url": "where people reach the service, for links in metrics and webhooks",
    "root_path": "path under which a proxy offers the service; pages and links begin with it",
    "metric_deployments": "broken deployments that /metrics names; 0 names none",
    "webhook_url": "where state changes are sent",
    "webhook_format": "generic, slack or alertmanager",
    "webhook_header_file": "file of headers for it, 'Name: value' a line",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one option per field of ``Settings``."""
    for name, info in Settings.model_fields.items():
        option, dest = f"--{name.replace('_', '-')}", _PREFIX + name
        text = _HELP.get(name, "") or name.replace("_", " ")
        kinds = _kinds(info.annotation)
        if bool in kinds:
            parser.add_argument(option, action="store_const", const=True, dest=dest, help=text)
        elif any(get_origin(kind) is tuple for kind in kinds):
            parser.add_argument(option, action="append", metavar="PATH", dest=dest, help=text)
        else:
            shown = f"{text} (default {info.default}, else ${PREFIX}{name.upper()})".replace("%", "%%")
            parser.add_argument(option, metavar=name.upper(), dest=dest, help=shown)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until the process is stopped."""
    given: dict[str, Any] = {name: getattr(args, _PREFIX + name) for name in Settings.model_fields}
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    settings = Settings.from_env(None, **options)
    serve = _serve()
    if args.json:
        print_json(settings)
        sys.stdout.flush()
    with redirect_stdout(sys.stderr) if args.json else nullcontext():
        serve(settings)
    return OK


def _serve() -> Callable[[Settings], object]:
    with needs_extra("preshuffle serve", "service"):
        from preshuffle.api.app import serve
    return serve


def _kinds(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [annotation]
