"""Candidates for the last word of a command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module

from preshuffle.api.commands import COMMANDS, module_of
from preshuffle.api.commands.completion.values import Completion, values_of
from preshuffle.api.commands.options.parser import Parser


@dataclass(slots=True)
class CommandLine:
    """State of a parser behind the words before the cursor.

    Attributes:
        parser: of the command or of its action.
        given: values by the destination of their argument.
        expects: option whose value comes next.
        position: how many positional arguments are given.
    """

    parser: argparse.ArgumentParser
    given: dict[str, list[str]] = field(default_factory=dict)
    expects: argparse.Action | None = None
    position: int = 0

    def read(self, word: str) -> None:
        """Take one word."""
        if self.expects is not None:
            self._give(self.expects, word)
            self.expects = None
        elif word.startswith("-") and len(word) > 1:
            option, equals, value = word.partition("=")
            action = self.option(option)
            if action is not None and equals:
                self._give(action, value)
            elif action is not None and action.nargs != 0:
                self.expects = action
        elif isinstance(action := self.argument(), argparse._SubParsersAction) and word in action.choices:
            self.parser, self.position = action.choices[word], 0
        else:
            if action is not None:
                self._give(action, word)
            self.position += 1

    def option(self, name: str) -> argparse.Action | None:
        """Return the option of a name."""
        return self.parser._option_string_actions.get(name)

    def argument(self) -> argparse.Action | None:
        """Return the positional argument that comes next.

        The last one may take many.
        """
        actions = [action for action in self.parser._actions if not action.option_strings]
        return actions[min(self.position, len(actions) - 1)] if actions else None

    def _give(self, action: argparse.Action, value: str) -> None:
        self.given.setdefault(action.dest, []).append(value)


def candidates(words: Sequence[str]) -> list[Completion]:
    """Return what the last word of a line can be.

    Empty where nothing is known, as for files.

    Args:
        words: behind ``preshuffle``, up to the cursor; the last one may be empty.
    """
    *before, current = words
    if not before or before == ["help"]:
        found: Iterator[Completion] = _commands(help_too=not before)
    elif before[0] in COMMANDS:
        found = _of_command(_line_of(before), current)
    else:
        found = iter(())
    return [one for one in dict.fromkeys(found) if one.value.startswith(current)]


def _commands(*, help_too: bool) -> Iterator[Completion]:
    yield from (Completion(name, what) for name, what in COMMANDS.items())
    if help_too:
        yield Completion("--help", "every command")
        yield Completion("--version", "of preshuffle")


def _line_of(words: Sequence[str]) -> CommandLine:
    parser = Parser(prog=f"preshuffle {words[0]}")
    import_module(module_of(words[0])).add_arguments(parser)
    line = CommandLine(parser)
    for word in words[1:]:
        line.read(word)
    return line


def _of_command(line: CommandLine, current: str) -> Iterator[Completion]:
    if line.expects is not None:
        yield from values_of(line.expects, line.given)
    elif current.startswith("-"):
        name, equals, _ = current.partition("=")
        if not equals:
            yield from _options(line.parser)
        elif (action := line.option(name)) is not None:
            yield from (Completion(f"{name}={one.value}", one.help) for one in values_of(action, line.given))
    elif (argument := line.argument()) is not None:
        yield from _argument(argument, line)


def _argument(action: argparse.Action, line: CommandLine) -> Iterator[Completion]:
    if isinstance(action, argparse._SubParsersAction):
        helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
        yield from (Completion(name, helps.get(name, "")) for name in action.choices)
    else:
        yield from values_of(action, line.given)


def _options(parser: argparse.ArgumentParser) -> Iterator[Completion]:
    for action in parser._actions:
        if action.help != argparse.SUPPRESS:
            yield from (
                Completion(name, (action.help or "").replace("%%", "%"))
                for name in action.option_strings
                if name.startswith("--")
            )
