"""Trial of every rule on a query, with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from preshuffle.registry.entries import Recipe, Rule, Scalar, Specificity
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve.requirements import Miss, unmet


@dataclass(frozen=True, slots=True)
class RuleTrial:
    """Outcome of trying one rule on a query.

    Attributes:
        misses: conditions that did not hold.
        recipe: what it uses; None where it says that nothing works.
        lacking: what its recipe requires and the query's GPU, AITER or checkpoint has not.
        exact: fields that matched an exact value, in the book's order.
    """

    rule: Rule
    recipe: Recipe | None
    specificity: Specificity
    required: Mapping[str, str]
    found: Mapping[str, Scalar]
    misses: tuple[Miss, ...]
    lacking: tuple[str, ...]
    exact: tuple[str, ...]

    @property
    def matches(self) -> bool:
        """Whether every condition holds."""
        return not self.misses

    @property
    def usable(self) -> bool:
        """Whether it matches and its recipe has all that it requires."""
        return not self.misses and not self.lacking

    @property
    def why_not(self) -> str:
        """Why the rule cannot be used; empty where it can."""
        return "; ".join([*map(str, self.misses), *self.lacking])


def try_rules(book: Book, facts: Mapping[str, Scalar]) -> tuple[RuleTrial, ...]:
    """Try every rule on a query's facts, the most specific first.

    Ties are sorted by id, which only matters for display.
    """
    trials = [try_rule(book, rule, facts) for rule in book.rules.values()]
    return tuple(sorted(trials, key=lambda item: (tuple(-part for part in item.specificity), item.rule.id)))


def try_rule(book: Book, rule: Rule, facts: Mapping[str, Scalar]) -> RuleTrial:
    """Try one rule on a query's facts."""
    conditions = rule.conditions()
    misses = tuple(
        Miss(name, condition.text, facts.get(name))
        for name, condition in conditions.items()
        if not condition.matches(facts.get(name))
    )
    recipe = None if rule.use is None else book.recipes[rule.use]
    missed = {str(miss) for miss in misses}
    return RuleTrial(
        rule,
        recipe,
        rule.specificity,
        {name: condition.text for name, condition in conditions.items()},
        {name: facts.get(name) for name in conditions},
        misses,
        tuple(text for text in unmet(book, rule, recipe, facts) if text not in missed),
        tuple(name for name, condition in conditions.items() if condition.kind != "pattern" and name != "engine"),
    )
