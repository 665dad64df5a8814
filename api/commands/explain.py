"""Say why: every rule in order, what it needed, what it found, why it won or lost.

Exit codes: 0 a rule was chosen, 1 none was, 2 bad input.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from importlib.metadata import version
from itertools import zip_longest

from preshuffle.api.commands.books import add_book_options, load_registry
from preshuffle.api.commands.decision_view import asked
from preshuffle.api.commands.failures import FAILED, OK
from preshuffle.api.commands.parser import add_json
from preshuffle.api.commands.query_options import add_query_options, read_query
from preshuffle.api.commands.screen import Screen, print_json, short_digest
from preshuffle.api.table import Cell, Column, Row, printable
from preshuffle.registry.condition import Scalar
from preshuffle.registry.explain import Explanation, RuleTrace
from preshuffle.registry.registry import Registry

_STYLES = {
    "chosen": "good",
    "nothing works": "bad",
    "less specific": "warn",
    "lacks a requirement": "warn",
    "does not match": "dim",
}

NOTHING = "nothing works"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_query_options(parser)
    add_book_options(parser, tables=False)
    shape = parser.add_mutually_exclusive_group()
    add_json(shape)  # type: ignore[arg-type]
    shape.add_argument("--text", action="store_true", help="a block to paste into a ticket: plain, complete")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Explain the query."""
    registry = load_registry(args)
    explanation = registry.explain(read_query(args, registry))
    if args.json:
        print_json(explanation)
    elif args.text:
        print(printable(ticket(explanation)))
    else:
        screen = Screen.of_terminal()
        show_explanation(screen, explanation, registry)
        screen.show()
    return OK if any(rule.outcome == "chosen" for rule in explanation.rules) else FAILED


def ticket(explanation: Explanation) -> str:
    """Return everything as plain text, one fact per line."""
    chosen = next((rule for rule in explanation.rules if rule.outcome in ("chosen", "nothing works")), None)
    query = explanation.query.model_dump(mode="json", exclude_defaults=True)
    lines = [
        f"preshuffle {version('preshuffle')}, registry {explanation.registry_digest}",
        f"query: {json.dumps(query, ensure_ascii=False)}",
        f"model entry: {explanation.model or 'none'}",
        *(f"{name}: {text}" for name, text in _of_model(explanation)),
        f"switches: {_pairs(explanation.switches) or 'none'}",
        f"chosen: {chosen.rule} -> {chosen.recipe or NOTHING}: {chosen.why}" if chosen else "chosen: none",
    ]
    for number, rule in enumerate(explanation.rules, 1):
        found = {name: _plain(value) for name, value in rule.found.items()}
        lines += [
            f"{number}. {rule.rule} -> {rule.recipe or NOTHING}: {rule.outcome}",
            f"   required: {_pairs(rule.required) or 'nothing'}",
            f"   found:    {_pairs(found) or 'nothing'}",
            f"   why:      {rule.why}",
        ]
    return "\n".join(lines)


def show_explanation(screen: Screen, explanation: Explanation, registry: Registry) -> None:
    """Put an explanation on the screen; conditions that hold are named, those that do not are shown."""
    screen.line(screen.paint(asked(explanation.query), "bold"))
    screen.pairs(
        [
            ("model entry", explanation.model or "none: the query must say what the book does not know"),
            *_of_model(explanation),
            ("switches", _pairs(explanation.switches) or "none counts here"),
        ]
    )
    screen.heading("rules", "in the order in which they were judged")
    columns = [Column("rule → recipe", wraps=True), Column("outcome"), Column("required and found", wraps=True)]
    screen.table(columns, [row for rule in explanation.rules for row in _rows(rule, registry)])
    if not any(rule.outcome == "chosen" for rule in explanation.rules):
        screen.heading("no rule was chosen")
    screen.line()
    screen.line(screen.paint(f"registry {short_digest(explanation.registry_digest)}", "dim"))


def _of_model(explanation: Explanation) -> list[tuple[str, str]]:
    """What else the model's entry says, and how far it can be trusted."""
    doubtful = f"{', '.join(explanation.unverified)}: general knowledge; config.json (--hf-config) knows"
    said = [
        ("unverified", doubtful if explanation.unverified else ""),
        ("note", explanation.note),
        ("shared experts", explanation.counted),
    ]
    return [(name, text) for name, text in said if text]


def _rows(rule: RuleTrace, registry: Registry) -> Iterator[Row]:
    """One line per condition that fails, one for all that hold; why, where that does not say it yet."""
    missed = _missed(rule, registry)
    held = [name for name in rule.required if name not in missed]
    style = _STYLES[rule.outcome]
    right = [
        Cell(f"✗ {name.removeprefix('env.')} = {rule.required[name]}; found {_plain(rule.found.get(name))}")
        for name in missed
    ]
    if held:
        right.append(Cell(f"✓ {', '.join(name.removeprefix('env.') for name in held)}", "dim"))
    if not missed:
        right.append(Cell(rule.why, style))
    left = [(Cell(rule.rule, "good" if rule.outcome == "chosen" else "bold"), Cell(rule.outcome, style))]
    left.append((Cell(f"→ {rule.recipe or NOTHING}", "name"), Cell("")))
    for first, second in zip_longest(left, right):
        yield (*(first or (Cell(""), Cell(""))), second or Cell(""))


def _missed(rule: RuleTrace, registry: Registry) -> list[str]:
    conditions = registry.book.rules[rule.rule].conditions()
    return [name for name, condition in conditions.items() if not condition.matches(rule.found.get(name))]


def _plain(value: Scalar) -> str:
    return "absent" if value is None else str(value)


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
