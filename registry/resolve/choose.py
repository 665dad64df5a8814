"""Choice of a rule among the candidates, with near alternatives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from preshuffle.registry.entries import Recipe, Scalar
from preshuffle.registry.loading import Book, Prepared
from preshuffle.registry.resolve.requirements import Miss, lacking
from preshuffle.registry.values.decision import Alternative

MOST_MISSED = 2
"""Most circumstances that a near rule may miss."""


@dataclass(frozen=True, slots=True)
class NearRule:
    """A rule for the same subject.

    Attributes:
        missed: the circumstances that are others.
        lacking: what its recipe requires that is not there; looked at only where nothing was missed.
    """

    rule: Prepared
    missed: tuple[str, ...]
    lacking: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The winning rule, and near ones, the most specific first."""

    winner: Prepared
    others: tuple[NearRule, ...]


def chosen(book: Book, facts: Mapping[str, Scalar]) -> tuple[Choice | None, tuple[Alternative, ...]]:
    """Return the winning rule, if any, and its alternatives (``choose`` and ``alternatives``)."""
    choice = choose(book, facts)
    return choice, () if choice is None else alternatives(choice, facts)


def choose(book: Book, facts: Mapping[str, Scalar]) -> Choice | None:
    """Return the most specific rule that matches, if there is one.

    Its recipe must have all that it requires.
    """
    winner: Prepared | None = None
    others: list[NearRule] = []
    for item in book.rule_index.candidates(facts):
        missed = item.misses(facts, MOST_MISSED)
        if missed is None:
            continue
        lacks: tuple[str, ...] = ()
        if not missed:
            lacks = () if item.recipe is None else tuple(lacking(book, item.recipe, facts))
            if winner is None and not lacks:
                winner = item
                continue
        others.append(NearRule(item, missed, lacks))
    return None if winner is None else Choice(winner, tuple(others))


def alternatives(choice: Choice, facts: Mapping[str, Scalar]) -> tuple[Alternative, ...]:
    """Return the recipes that were not chosen, and why.

    They are for the same model, checkpoint, GPU and engine.

    Where a model has rules of its own, they are those to choose among.
    """
    own = "model" in choice.winner.conditions
    best: dict[str, tuple[NearRule, Recipe]] = {}
    for near in choice.others:
        recipe = near.rule.recipe
        if recipe is None or recipe is choice.winner.recipe or (own and "model" not in near.rule.conditions):
            continue
        known = best.get(recipe.id)
        if known is None or len(near.missed) < len(known[0].missed):
            best[recipe.id] = (near, recipe)
    return tuple(
        Alternative(recipe=id, why_not=_why_not(near, recipe, choice.winner, facts))
        for id, (near, recipe) in best.items()
    )


def _why_not(near: NearRule, recipe: Recipe, winner: Prepared, facts: Mapping[str, Scalar]) -> str:
    rule = near.rule.rule
    about = "; ".join(filter(None, (recipe.suits, recipe.validity)))
    reasons = dict.fromkeys([*_misses(near, facts), *near.lacking])
    if reasons:
        return f"{about}; rule {rule.id} {'; '.join(reasons)}"
    return f"{about}; rule {rule.id} matches too, and {winner.rule.id} is more specific"


def _misses(near: NearRule, facts: Mapping[str, Scalar]) -> Iterable[str]:
    conditions = near.rule.conditions
    return (str(Miss(name, conditions[name].text, facts.get(name))) for name in near.missed)
