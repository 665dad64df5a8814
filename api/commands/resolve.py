"""Decide layouts, call and kernels for a query.

Exit codes: 0 decided (warnings at most), 1 error findings or no recipe, 2 bad input.
"""

from __future__ import annotations

import argparse

from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import FAILED, OK
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.options.query_options import add_query_options, read_query
from preshuffle.api.commands.options.service_option import add_server_option, query_service
from preshuffle.api.commands.screens.screen import Screen, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_query_options(parser)
    add_book_options(parser)
    add_server_option(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Resolve the query and show the decision."""
    registry = load_registry(args)
    query = read_query(args, registry)
    if args.server:
        decision = query_service(args, lambda client: client.resolve(query), registry)
    else:
        decision = registry.resolve(query)
    if args.json:
        print_json(decision)
    else:
        from preshuffle.api.commands.screens.decision_view import show_decision

        screen = Screen.of_terminal()
        show_decision(screen, query, decision, registry)
        screen.show()
    return FAILED if any(finding.severity == "error" for finding in decision.findings) else OK
