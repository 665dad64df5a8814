"""Print a completion script for a shell.

It completes commands, options and values: GPUs, models, engines, layouts, finding codes and what else the book knows
(that of --book on the line, or of PRESHUFFLE_BOOK).
"""

from __future__ import annotations

import argparse
import json

from preshuffle.api.commands.completion.scripts import SCRIPTS, completion_script
from preshuffle.api.commands.options.failures import OK
from preshuffle.api.commands.options.parser import add_json

SHELLS = tuple(SCRIPTS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the shell's name."""
    parser.add_argument("shell", choices=SHELLS)
    parser.add_argument("--complete", nargs=argparse.REMAINDER, metavar="WORD", help=argparse.SUPPRESS)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the shell's script, or candidates for a command line."""
    if args.complete is not None:
        from preshuffle.api.commands.completion.shells import completion_lines

        print("".join(f"{line}\n" for line in completion_lines(args.shell, args.complete)), end="")
        return OK
    script = completion_script(args.shell)
    print(json.dumps({"shell": args.shell, "script": script}) if args.json else script)
    return OK
