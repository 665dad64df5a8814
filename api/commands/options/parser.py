"""Argument parser of every command, with suggestions for typing mistakes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from preshuffle.api.commands.options.examples import examples_text
from preshuffle.api.commands.options.failures import UsageError


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the suggestion ``; did you mean …?``, or an empty text."""
    close = get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def join_env_values(arguments: Sequence[str]) -> list[str]:
    """Join ``--env`` with a value that begins with dashes.

    Options of engines are switches, too, and begin so.

    Example:
        >>> join_env_values(["--env", "--moe-backend=flydsl", "--tp", "2"])
        ['--env=--moe-backend=flydsl', '--tp', '2']
    """
    result: list[str] = []
    for argument in arguments:
        if result and result[-1] == "--env" and argument.startswith("--") and "=" in argument:
            result[-1] = f"--env={argument}"
        else:
            result.append(argument)
    return result


class Parser(argparse.ArgumentParser):
    """Argument parser without abbreviations that raises its errors."""

    def __init__(self, **options: Any) -> None:
        """Create a parser whose help ends with the command's examples.

        The options are argparse's.
        """
        command = str(options.get("prog", "")).removeprefix("preshuffle").strip()
        defaults = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(**{**defaults, "epilog": examples_text(command) or None, **options})

    def error(self, message: str) -> NoReturn:
        """Raise the error instead of printing the usage and exiting.

        Raises:
            UsageError: always.
        """
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            message = f"unknown argument {unknown[1]}{nearest(unknown[1].split('=')[0], known)}"
        choice = re.match(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message)
        if choice:
            known = re.findall(r"[\w.-]+", choice[3])
            message = f"{choice[1]}: invalid choice {choice[2]!r}{nearest(choice[2], known)}; valid: {', '.join(known)}"
        raise UsageError(f"{self.prog.removeprefix('preshuffle ')}: {message} (see: {self.prog} --help)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print the answer as JSON and nothing else")
