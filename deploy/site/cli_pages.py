"""Reference of the command line, from the parsers that print its help."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib import import_module
from typing import Final

from page_markup import code, fenced, page, table, text

from preshuffle.api.commands import COMMANDS, EXTRAS, module_of
from preshuffle.api.commands.options.failures import EXIT_CODES
from preshuffle.api.commands.options.parser import Parser

INDEX: Final = "reference/cli/index.md"
_CODES: Final = "**Exit codes:**"
_WIDTH: Final = 76
"""Columns of the usage lines."""


def cli_pages() -> dict[str, str]:
    """Return one page per command, after one of all commands."""
    rows = [(f"[`preshuffle {name}`]({name}.md)", text(what)) for name, what in COMMANDS.items()]
    codes = [(str(number), text(meaning)) for number, meaning in EXIT_CODES.items()]
    index = page(
        "# Command line",
        "Every command takes `--help` and, where it has an answer, `--json`: then standard output is one JSON document "
        "and nothing else.",
        table(("Command", "What it does"), rows),
        "## Exit codes",
        "What a command means by 1 and 3 stands on its page.",
        table(("Code", "Meaning"), codes),
    )
    return {INDEX: index, **{f"reference/cli/{name}.md": _command(name) for name in COMMANDS}}


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command, as the command line makes it."""
    module = import_module(module_of(name))
    parser = Parser(prog=f"preshuffle {name}", description=module.__doc__)
    parser.formatter_class = _Formatter
    module.add_arguments(parser)
    return parser


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Formatter of usage lines as wide as the page."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_WIDTH)


def _command(name: str) -> str:
    extra = EXTRAS.get(name)
    needs = f'Needs `pip install "preshuffle[{extra}]"`.' if extra else ""
    sections = list(_sections(parser_of(name), 2))
    own_codes = any(section.startswith(_CODES) for section in sections)
    usual = "" if own_codes else f"{_CODES} those of [every command](index.md#exit-codes)."
    return page(f"# preshuffle {name}", needs, *sections[:1], usual, *sections[1:])


def _sections(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    """Yield what a parser says of itself, then of its actions."""
    yield from _paragraphs(parser.description or "")
    parser.formatter_class = _Formatter
    yield fenced(parser.format_usage().removeprefix("usage: "), "text")
    nested: list[argparse.ArgumentParser] = []
    for group in parser._action_groups:
        shown = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        for action in shown:
            if isinstance(action, argparse._SubParsersAction):
                nested += action.choices.values()
        rows = [_row(action) for action in shown if not isinstance(action, argparse._SubParsersAction)]
        if rows:
            title = (group.title or "").capitalize()
            described = text(group.description or "")
            yield f"**{title}**{f': {described}' if described else ''}\n\n{table(('Argument', 'Meaning'), rows)}"
    examples = (parser.epilog or "").removeprefix("examples:").replace("\n  ", "\n").strip()
    if examples:
        yield "**Examples**"
        yield fenced("\n".join(f"$ {line}" for line in examples.splitlines()), "console")
    for inner in nested:
        yield f"{'#' * level} {inner.prog}"
        yield from _sections(inner, level + 1)


def _paragraphs(description: str) -> Iterator[str]:
    """Yield the paragraphs of a docstring; those that are indented are code."""
    for paragraph in filter(None, description.strip("\n").split("\n\n")):
        if all(line.startswith("  ") for line in paragraph.splitlines()):
            yield fenced(paragraph, "text")
        else:
            before, found, codes = paragraph.partition("Exit codes:")
            yield text(before)
            yield f"{_CODES} {text(codes)}" if found else ""


def _row(action: argparse.Action) -> tuple[str, str]:
    """Return an argument with its values, and what it is."""
    names = ", ".join(code(name) for name in action.option_strings)
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    value = "" if action.nargs == 0 else code(metavar)
    choices = f" one of {', '.join(map(code, action.choices))}" if action.choices else ""
    helped = text(action.help % {**vars(action), "prog": "preshuffle"} if action.help else "")
    return " ".join(filter(None, (names, value))) or code(action.dest), helped + choices
