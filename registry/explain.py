"""Why: every rule that was considered, in order, what it required, what it found, and why it lost."""

from __future__ import annotations

from typing import Literal

from preshuffle.registry.books import Book
from preshuffle.registry.condition import Scalar
from preshuffle.registry.match import Tried, try_rules
from preshuffle.registry.query import Frozen, Query
from preshuffle.registry.resolve import open_case

Outcome = Literal["chosen", "nothing works", "less specific", "lacks a requirement", "does not match"]


class RuleTrace(Frozen):
    """What became of one rule; ``nothing works``: it wins, and says that no recipe is right."""

    rule: str
    recipe: str | None
    outcome: Outcome
    required: dict[str, str]
    found: dict[str, Scalar]
    why: str


class Explanation(Frozen):
    """The whole path from a query to its rule.

    Attributes:
        model: the model's entry, where there is one.
        unverified: facts that come from it and rest on general knowledge, not on the checkpoint's own files.
        note: what else it says an operator should know.
        counted: why shared experts count among the experts; empty where none do.
    """

    query: Query
    model: str | None
    unverified: tuple[str, ...] = ()
    note: str = ""
    counted: str = ""
    switches: dict[str, str]
    rules: tuple[RuleTrace, ...]
    registry_digest: str


def explain(query: Query, book: Book) -> Explanation:
    """Explain a query; unlike ``resolve`` it answers where no rule matches, too.

    Raises:
        NoRecipeError: the arch is unknown.
        QueryError: a switch has a value that it cannot have.
    """
    case = open_case(query, book)
    tried = try_rules(book, case.facts)
    winner = next((item for item in tried if item.usable), None)
    order = sorted(tried, key=lambda item: (not item.matches, bool(item.lacking)))
    return Explanation(
        query=query,
        model=case.model.id if case.model else None,
        unverified=tuple(name for name in case.model.unverified if getattr(query, name, None) is None)
        if case.model
        else (),
        note=case.model.note if case.model else "",
        counted=case.counted,
        switches=case.switches.values,
        rules=tuple(_trace(item, winner) for item in order),
        registry_digest=book.digest,
    )


def _trace(item: Tried, winner: Tried | None) -> RuleTrace:
    outcome: Outcome
    if item is winner:
        outcome, why = "chosen" if item.recipe else "nothing works", item.rule.because
    elif item.usable:
        outcome, why = "less specific", f"{winner.rule.id if winner else ''} is more specific"
    elif item.matches:
        outcome, why = "lacks a requirement", item.why_not
    else:
        outcome, why = "does not match", item.why_not
    return RuleTrace(
        rule=item.rule.id,
        recipe=item.recipe.id if item.recipe else None,
        outcome=outcome,
        required=dict(item.required),
        found=dict(item.found),
        why=why,
    )
