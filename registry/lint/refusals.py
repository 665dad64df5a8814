"""Lint of refusals: packaged ones name versions and released code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.entries import ContractEntry, KnownBadEntry, Rule, code_references
from preshuffle.registry.loading import Book

_REFUSING_CODES: Final = frozenset({"unsupported", "version_unsupported"})
_REFUSING_EFFECTS: Final = frozenset({"wrong", "crash"})
_VERSIONS: Final = frozenset({"aiter", "aiter_features", "engine_version", "rocm"})
_CODE_FORM: Final = ("https://github.com/OWNER/NAME/blob/TAG/FILE#SYMBOL",)

Refusal = Rule | ContractEntry | KnownBadEntry


def refusing_entries(book: Book) -> Iterator[tuple[str, Refusal]]:
    """Yield section and entry of everything that can refuse a deployment.

    Rules without a recipe, contracts that say that no kernel runs, and known problems with wrong results or crashes.
    """
    for rule in book.rules.values():
        if rule.use is None:
            yield "rules", rule
    for contract in book.entries["contracts"].values():
        if contract.refuses or contract.code in _REFUSING_CODES:
            yield "contracts", contract
    for problem in book.entries["known_bad"].values():
        if problem.effect in _REFUSING_EFFECTS:
            yield "known_bad", problem


def refusal_problems(book: Book) -> Iterator[Problem]:
    """Yield packaged refusals that rest on no version or no code.

    A thread or a comment tells what somebody saw; code at a release tells what cannot work, and for how long. A known
    problem may be what was seen, if it says so (``rests_on: reports``), but never without versions.
    """
    for section, entry in refusing_entries(book):
        place = book.places[section, entry.id]
        if not place.packaged:
            continue
        if entry.since is None and not _VERSIONS & _conditions(entry):
            yield place.problem(f"{entry.id} refuses and names no version: give `since`, or a condition on one")
        if section == "known_bad" and "model" in _conditions(entry):
            yield place.problem(f"{entry.id} is keyed by a model: key it by the kernel, shape or switch that is broken")
        reported = isinstance(entry, KnownBadEntry) and entry.rests_on == "reports"
        if not reported and not code_references(entry.evidence):
            yield place.problem(
                f"{entry.id} refuses without evidence in code of a release: file and symbol", valid=_CODE_FORM
            )


def _conditions(entry: Refusal) -> set[str]:
    """Return the facts on which an entry depends."""
    if isinstance(entry, Rule):
        return set(entry.conditions())
    return {name for conditions in (entry.when, *entry.unless) for name in conditions}
