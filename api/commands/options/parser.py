"""The argument parser of every command: one line for an error, the nearest names for a typing mistake."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from preshuffle.api.commands.options.failures import UsageError


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``; did you mean …?`` for a name that is close to a known one, else an empty text."""
    close = get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def joined(arguments: Sequence[str]) -> list[str]:
    """Join ``--env`` with a value that begins with dashes itself, as engines' options do.

    Example:
        >>> joined(["--env", "--moe-backend=flydsl", "--tp", "2"])
        ['--env=--moe-backend=flydsl', '--tp', '2']
    """
    done: list[str] = []
    for argument in arguments:
        if done and done[-1] == "--env" and argument.startswith("--") and "=" in argument:
            done[-1] = f"--env={argument}"
        else:
            done.append(argument)
    return done


class Parser(argparse.ArgumentParser):
    """argparse with this project's manners: options are never abbreviated, errors are raised, not printed."""

    def __init__(self, **options: Any) -> None:
        """Make a parser; the options are argparse's."""
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving.

        Raises:
            UsageError: always.
        """
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            message = f"unknown argument {unknown[1]}{nearest(unknown[1].split('=')[0], known)}"
        raise UsageError(f"{self.prog.removeprefix('preshuffle ')}: {message} (see: {self.prog} --help)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print the answer as JSON and nothing else")
