"""Choice of a rule among the candidates, with near alternatives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from preshuffle.registry.entries import Recipe, Rule, Scalar
from preshuffle.registry.layer import MoELayer, engine_notes, read_after, unknown_engine
from preshuffle.registry.loading import Book, Prepared
from preshuffle.registry.resolve.requirements import Miss, decisive_facts, refusal, unmet
from preshuffle.registry.values.decision import Alternative
from preshuffle.registry.values.query import Engine

MOST_MISSED = 2
"""Number of circumstances that a near rule may miss."""


@dataclass(frozen=True, slots=True)
class NearRule:
    """Losing rule for the same model, checkpoint, GPU and engine.

    Attributes:
        missed: fields of the circumstances that do not match.
        lacking: requirements of its recipe that are not met; determined only where nothing was missed.
    """

    rule: Prepared
    missed: tuple[str, ...]
    lacking: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The winning rule, and near rules, the most specific first."""

    winner: Prepared
    others: tuple[NearRule, ...]


def chosen(layer: MoELayer) -> tuple[Choice | None, tuple[Alternative, ...]]:
    """Choose the rule of a layer, with alternatives.

    It is memoised by the facts that decide.
    """
    book, facts = layer.book, layer.rule_facts
    return layer.memo.get(
        "choices", tuple(map(facts.get, decisive_facts_of(layer))), lambda: choose_with_alternatives(book, facts)
    )


def choose_with_alternatives(book: Book, facts: Mapping[str, Scalar]) -> tuple[Choice | None, tuple[Alternative, ...]]:
    """Return the winning rule, if any, and its alternatives (``choose`` and ``alternatives``)."""
    choice = choose(book, facts)
    return choice, () if choice is None else alternatives(choice, facts)


def engine_notes_under(book: Book, engine: Engine | None, rule: Rule | None) -> tuple[str, ...]:
    """Return what an answer by a rule must say of the engine.

    An unknown name is told, unless the rule is for that engine.
    """
    known = rule is not None and "engine" in rule.conditions()
    unknown = None if known else unknown_engine(book, engine)
    return (unknown,) if unknown else engine_notes(book, engine, rule.engine_since if rule else None)


def decisive_facts_of(layer: MoELayer) -> tuple[str, ...]:
    """Return the facts that decide which rule answers.

    They are the book's, and collected once.
    """
    return layer.memo.get("decisive facts", (), lambda: decisive_facts(layer.book))


def engine_notes_of(layer: MoELayer) -> tuple[str, ...]:
    """Return what any answer must say of a layer's engine.

    The release as which it is answered counts from the one in which the layer's rule was read.
    """
    book, engine = layer.book, layer.requested.engine
    if engine is None:
        return ()
    if unknown := unknown_engine(book, engine):
        return (unknown,)
    later = layer.memo.get("read after", engine, lambda: read_after(book, engine))
    choice = chosen(layer)[0] if later else None
    found = choice.winner.rule if choice else refusal(book, layer.rule_facts) if later else None
    return engine_notes(book, engine, found.engine_since if found else None)


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
        reasons: tuple[str, ...] = ()
        if not missed:
            reasons = tuple(unmet(book, item.rule, item.recipe, facts))
            if winner is None and not reasons:
                winner = item
                continue
        others.append(NearRule(item, missed, reasons))
    return None if winner is None else Choice(winner, tuple(others))


def alternatives(choice: Choice, facts: Mapping[str, Scalar]) -> tuple[Alternative, ...]:
    """Return the recipes that were not chosen, and why.

    They are for the same model, checkpoint, GPU and engine. Where the model has rules of its own, only those count.
    """
    of_model = "model" in choice.winner.conditions
    best: dict[str, tuple[NearRule, Recipe]] = {}
    for near in choice.others:
        recipe = near.rule.recipe
        if recipe is None or recipe is choice.winner.recipe or (of_model and "model" not in near.rule.conditions):
            continue
        nearest = best.get(recipe.id)
        if nearest is None or len(near.missed) < len(nearest[0].missed):
            best[recipe.id] = (near, recipe)
    return tuple(
        Alternative(recipe=id, why_not=_why_not(near, recipe, choice.winner, facts))
        for id, (near, recipe) in best.items()
    )


def _why_not(near: NearRule, recipe: Recipe, winner: Prepared, facts: Mapping[str, Scalar]) -> str:
    rule = near.rule.rule
    suits = "; ".join(filter(None, (recipe.suits, recipe.validity)))
    reasons = dict.fromkeys([*_misses(near, facts), *near.lacking])
    if reasons:
        return f"{suits}; rule {rule.id} {'; '.join(reasons)}"
    return f"{suits}; rule {rule.id} matches too, and {winner.rule.id} is more specific"


def _misses(near: NearRule, facts: Mapping[str, Scalar]) -> Iterable[str]:
    conditions = near.rule.conditions
    return (str(Miss(name, conditions[name].text, facts.get(name))) for name in near.missed)
