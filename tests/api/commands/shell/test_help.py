"""Every ``--help`` ends with examples, and every example is a command line that the parser takes."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from importlib import import_module

import pytest

from preshuffle.api.cli import main
from preshuffle.api.commands import COMMANDS, module_of
from preshuffle.api.commands.options.examples import EXAMPLES
from preshuffle.api.commands.options.parser import Parser, join_env_values


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of every command and of all its actions."""
    found: dict[str, argparse.ArgumentParser] = {}
    for name in COMMANDS:
        module = import_module(module_of(name))
        parser = Parser(prog=f"preshuffle {name}", description=module.__doc__)
        module.add_arguments(parser)
        found.update(walk(name, parser))
    return found


def walk(command: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield command, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from walk(f"{command} {name}", sub)


PARSERS = parsers()


@pytest.mark.parametrize("command", PARSERS)
def test_help_ends_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    _, mark, examples = capsys.readouterr().out.partition("\nexamples:\n")
    assert mark
    lines = examples.splitlines()
    assert lines
    assert all(line.startswith(f"  preshuffle {command}") for line in lines)


def test_no_example_is_left_over() -> None:
    assert set(EXAMPLES) == {"", *PARSERS}


@pytest.mark.parametrize("command", PARSERS)
def test_examples_are_taken(command: str) -> None:
    root = PARSERS[command.split()[0]]
    for example in EXAMPLES[command]:
        words = shlex.split(example.partition(" >")[0])
        root.parse_args(join_env_values([*command.split()[1:], *words]))
