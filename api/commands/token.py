"""Create a bearer token; the tokens file holds its hash.

The secret goes to standard error, the file's line to standard output. The file begins with a line `tokens:`.
"""

from __future__ import annotations

import argparse
import json
import sys

from preshuffle.api.commands.options.failures import OK, UsageError
from preshuffle.api.commands.options.parser import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the holder's name, the role and the deployments."""
    parser.add_argument("name", metavar="NAME", help="who holds it; it goes into the history of what they change")
    parser.add_argument("--role", choices=("report", "admin"), required=True, help="report: its own deployments only")
    parser.add_argument(
        "--deployments", action="append", metavar="GLOB", default=[], help="of a report token; repeatable"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Create a token and print it.

    Raises:
        UsageError: name, role and deployments do not go together.
    """
    from pydantic import ValidationError

    from preshuffle.api.web import make_token
    from preshuffle.registry.text import field_problems

    try:
        secret, token = make_token(args.name, args.role, tuple(args.deployments))
    except ValidationError as error:
        text = "; ".join(problem.message for _, problem in field_problems(error))
        raise UsageError(f"token: {text}") from None
    line = token.model_dump(mode="json", exclude_defaults=True)
    if args.json:
        print(json.dumps({"secret": secret, "token": line}))
        return OK
    print(f"  - {json.dumps(line)}")
    print(f"the secret of {token.name}, shown this once: {secret}", file=sys.stderr)
    return OK
