"""Print a completion script for a shell.

preshuffle completion bash > ~/.local/share/bash-completion/completions/preshuffle
preshuffle completion zsh > "${fpath[1]}/_preshuffle"
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from typing import Final

from preshuffle.api.commands import COMMANDS
from preshuffle.api.commands.options.failures import OK, needs_extra
from preshuffle.api.commands.options.parser import Parser, add_json

SHELLS: Final = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the shell's name."""
    parser.add_argument("shell", choices=SHELLS)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    with needs_extra("preshuffle completion", "service"):
        import shtab
    script = shtab.complete(full_parser(), shell=args.shell)
    print(json.dumps({"shell": args.shell, "script": script}) if args.json else script)
    return OK


def full_parser() -> argparse.ArgumentParser:
    """Return one parser with every command and its arguments."""
    root = Parser(prog="preshuffle")
    commands = root.add_subparsers()
    for name, what in COMMANDS.items():
        module = import_module(f"preshuffle.api.commands.{name}")
        module.add_arguments(commands.add_parser(name, help=what.replace("%", "%%")))
    return root
