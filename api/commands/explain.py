"""Explain a decision: each relevant rule, what it required and found.

Rules for another engine, GPU, activation or kind of weights are counted, and shown with --all; --json has every rule.
Exit codes: 0 a rule was chosen, 1 none was, 2 bad input.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import preshuffle
from preshuffle.api.commands.options.books import add_book_options, load_registry
from preshuffle.api.commands.options.failures import FAILED, OK
from preshuffle.api.commands.options.parser import add_json
from preshuffle.api.commands.options.query_options import add_query_options, read_query
from preshuffle.api.commands.screens.decision_view import query_text
from preshuffle.api.commands.screens.screen import Screen, print_json, short_digest
from preshuffle.api.commands.screens.table import Cell, Column, Row, printable
from preshuffle.registry.entries import Scalar
from preshuffle.registry.layer import Source
from preshuffle.registry.resolve import Explanation, Irrelevance, RuleTrace

_STYLES = {
    "chosen": "good",
    "nothing works": "bad",
    "less specific": "warn",
    "lacks a requirement": "warn",
    "does not match": "dim",
}

NOTHING = "nothing works"
_SOURCES: dict[Source, str] = {
    "given": "given",
    "model": "of the model",
    "engine": "by the engine",
    "aiter": "by AITER's build",
    "observed": "observed",
    "default": "by default",
    "unknown": "unknown",
}
_IRRELEVANT: dict[Irrelevance | None, str] = {
    "engine": "another engine or none",
    "arch": "another GPU",
    "weights": "other weights",
    "activation": "another activation",
    None: "this case",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_query_options(parser)
    add_book_options(parser, tables=False)
    shape = parser.add_mutually_exclusive_group()
    add_json(shape)  # type: ignore[arg-type]
    shape.add_argument("--text", action="store_true", help="a block to paste into a ticket: plain, one fact per line")
    parser.add_argument("--all", action="store_true", help="rules for another engine, GPU or other weights, too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Explain the decision for a query."""
    registry = load_registry(args)
    explanation = registry.explain(read_query(args, registry))
    if args.json:
        print_json(explanation)
    elif args.text:
        print(printable(ticket(explanation, every_rule=args.all)))
    else:
        screen = Screen.of_terminal()
        show_explanation(screen, explanation, every_rule=args.all)
        screen.show()
    return OK if any(rule.outcome == "chosen" for rule in explanation.rules) else FAILED


def ticket(explanation: Explanation, *, every_rule: bool = False) -> str:
    """Format the explanation as plain text for a ticket.

    ``every_rule`` adds the rules that are not relevant to the query.
    """
    chosen = next((rule for rule in explanation.rules if rule.outcome in ("chosen", NOTHING)), None)
    query = explanation.query.model_dump(mode="json", exclude_defaults=True)
    shown = explanation.rules if every_rule else explanation.in_question
    lines = [
        f"preshuffle {preshuffle.__version__}, registry {explanation.registry_digest}",
        f"query: {json.dumps(query, ensure_ascii=False)}",
        f"model entry: {explanation.model or 'none'}",
        *(f"{name}: {text}" for name, text in _of_model(explanation)),
        *(f"{name}: {text}" for name, text in _layer(explanation)),
        f"switches: {_switches(explanation, shown)}",
        f"chosen: {chosen.rule} -> {chosen.recipe or NOTHING}: {chosen.why}" if chosen else "chosen: none",
    ]
    for number, rule in enumerate(shown, 1):
        lines.append(f"{number}. {rule.rule} -> {rule.recipe or NOTHING}: {rule.outcome}")
        lines += [f"   missed: {text}" for text in _failed(rule)]
        if satisfied := _satisfied(rule):
            lines.append(f"   held:   {_pairs({name: rule.required[name] for name in satisfied})}")
    if rest := _rest(explanation, shown):
        lines.append(rest)
    return "\n".join(lines)


def show_explanation(screen: Screen, explanation: Explanation, *, every_rule: bool = False) -> None:
    """Show an explanation; failed conditions in full, others by name."""
    shown = explanation.rules if every_rule else explanation.in_question
    screen.line(screen.paint(query_text(explanation.query), "bold"))
    screen.pairs(
        [
            ("model entry", explanation.model or "none: the query must hold what the book does not know"),
            *_of_model(explanation),
            *_layer(explanation),
            ("switches", _switches(explanation, shown)),
        ]
    )
    screen.heading("rules", "the most specific first; ✓ held, ✗ did not")
    columns = [Column("rule → recipe", wraps=True), Column("outcome"), Column("required and found", wraps=True)]
    screen.table(columns, [row for rule in shown for row in _rows(rule)])
    if rest := _rest(explanation, shown):
        screen.line()
        screen.text(rest, style="dim")
    if not any(rule.outcome == "chosen" for rule in explanation.rules):
        screen.heading("no rule was chosen", "resolve names the nearest and what would work")
    screen.line()
    screen.line(screen.paint(f"registry {short_digest(explanation.registry_digest)}", "dim"))


def _of_model(explanation: Explanation) -> list[tuple[str, str]]:
    """Yield further facts of the model's entry and their provenance."""
    doubtful = f"{', '.join(explanation.unverified)}: general knowledge; config.json (--hf-config) knows"
    facts = [
        ("unverified", doubtful if explanation.unverified else ""),
        ("note", explanation.note),
        ("shared experts", explanation.counted),
        ("engine", "; ".join(explanation.engine)),
    ]
    return [(name, text) for name, text in facts if text]


def _layer(explanation: Explanation) -> list[tuple[str, str]]:
    """Return the layer's facts by source, what is unknown last."""
    by_source: dict[Source, list[str]] = {source: [] for source in _SOURCES}
    for name, fact in explanation.layer.items():
        by_source[fact.source].append(name if fact.source == "unknown" else f"{name}={fact.value}")
    return [(title, ", ".join(by_source[source])) for source, title in _SOURCES.items() if by_source[source]]


def _switches(explanation: Explanation, shown: Sequence[RuleTrace]) -> str:
    """Format the switches that the query or a shown rule mentions."""
    required = {name.removeprefix("env.") for rule in shown for name in rule.required}
    named = {name: value for name, value in explanation.switches.items() if name in required}
    named |= {name: value for name, value in explanation.query.env.items() if name not in named}
    others = len(explanation.switches.keys() - named.keys())
    return f"{_pairs(named) or 'none counts here'}" + (f" ({others} others at their defaults)" if others else "")


def _rest(explanation: Explanation, shown: Sequence[RuleTrace]) -> str:
    """Count the rules that are not shown, by the reason.

    Empty where all are shown.
    """
    names = {rule.rule for rule in shown}
    hidden = Counter(rule.aside for rule in explanation.rules if rule.rule not in names)
    parts = [f"{hidden[kind]} for {words}" for kind, words in _IRRELEVANT.items() if hidden[kind]]
    return f"not relevant: {', '.join(parts)} (--all shows them)" if parts else ""


def _rows(rule: RuleTrace) -> Iterator[Row]:
    """Yield a line per failed condition, and one for the others.

    Where that does not explain the outcome yet, the reason follows.
    """
    style = _STYLES[rule.outcome]
    failed = _failed(rule)
    right = [Cell(f"✗ {text}") for text in failed]
    if satisfied := _satisfied(rule):
        right.append(Cell(f"✓ {', '.join(name.removeprefix('env.') for name in satisfied)}", "dim"))
    if not failed:
        right.append(Cell(rule.why, style))
    left = [(Cell(rule.rule, "good" if rule.outcome == "chosen" else "bold"), Cell(rule.outcome, style))]
    left.append((Cell(f"→ {rule.recipe or NOTHING}", "name"), Cell("")))
    for first, second in zip_longest(left, right):
        yield (*(first or (Cell(""), Cell(""))), second or Cell(""))


def _failed(rule: RuleTrace) -> list[str]:
    """List failed conditions with the value found, then missing requirements."""
    missed = [
        f"{name.removeprefix('env.')} = {rule.required[name]}; found {_plain(rule.found.get(name))}"
        for name in rule.missed
    ]
    return missed + list(rule.lacking)


def _satisfied(rule: RuleTrace) -> list[str]:
    return [name for name in rule.required if name not in rule.missed]


def _plain(value: Scalar) -> str:
    return "absent" if value is None else str(value)


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
