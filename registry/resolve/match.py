"""Which rule answers: every rule is tried, every outcome keeps its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from preshuffle.registry.algebra.shard import cut
from preshuffle.registry.base.errors import QueryError
from preshuffle.registry.base.words import GROUP
from preshuffle.registry.entries import PadRule, Recipe, Rule, Scalar, Specificity, multiple_for
from preshuffle.registry.layer import why_lacking
from preshuffle.registry.loading import Book
from preshuffle.registry.values.query import read_probed

REQUIRED_OF = (
    "arch", "aiter", "aiter_features", "activation", "gate_up_order", "weight_dtype", "quant_type", "gated",
    "hidden_size", "intermediate_size", "tp",
)  # fmt: skip
"""Fields on which it depends whether a recipe has all that it requires."""


@dataclass(frozen=True, slots=True)
class Miss:
    """One condition that did not hold."""

    field: str
    wanted: str
    found: Scalar

    def __str__(self) -> str:
        """Say what was needed and what was found."""
        shown = str(self.found) if str(self.found).isprintable() else repr(self.found)
        found = "absent" if self.found is None else shown
        return f"needs {self.field}={self.wanted}, found {found}"


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one rule.

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


def try_rules(book: Book, facts: Mapping[str, Scalar]) -> tuple[Tried, ...]:
    """Try every rule on a query's facts, the most specific first (ties by id, which only matters for display)."""
    tried = [try_rule(book, rule, facts) for rule in book.rules.values()]
    return tuple(sorted(tried, key=lambda item: (tuple(-part for part in item.specificity), item.rule.id)))


def try_rule(book: Book, rule: Rule, facts: Mapping[str, Scalar]) -> Tried:
    """Try one rule on a query's facts."""
    conditions = rule.conditions()
    misses = tuple(
        Miss(name, condition.text, facts.get(name))
        for name, condition in conditions.items()
        if not condition.matches(facts.get(name))
    )
    recipe = None if rule.use is None else book.recipes[rule.use]
    said = {str(miss) for miss in misses}
    return Tried(
        rule,
        recipe,
        rule.specificity,
        {name: condition.text for name, condition in conditions.items()},
        {name: facts.get(name) for name in conditions},
        misses,
        () if recipe is None else tuple(text for text in lacking(book, recipe, facts) if text not in said),
        tuple(name for name, condition in conditions.items() if condition.kind != "pattern" and name != "engine"),
    )


def lacking(book: Book, recipe: Recipe, facts: Mapping[str, Scalar]) -> list[str]:
    """Say what a recipe requires that is not there. What is unknown (no AITER version given) is not held against it."""
    missing: list[str] = []
    arch = book.archs.get(str(facts.get("arch")))
    for feature in recipe.requires.arch:
        if arch is not None and feature not in arch.features:
            missing.append(arch.lacks.get(feature, f"{arch.id} has no {feature}"))
    version, probed = facts.get("aiter"), facts.get("aiter_features")
    if recipe.requires.aiter and (version or probed):
        asked = None if version is None else str(version), read_probed(str(probed or ""))
        reasons = (why_lacking(book.features[name], *asked) for name in recipe.requires.aiter)
        missing += [reason for reason in reasons if reason]
    missing += _other_weights(book, recipe, facts)
    activation = facts.get("activation")
    if recipe.requires.activation and activation is not None and activation not in recipe.requires.activation:
        missing.append(f"needs activation={' or '.join(recipe.requires.activation)}, found {activation}")
    missing += _undivided(recipe, facts)
    order = facts.get("gate_up_order")
    if recipe.requires.gate_up_order and order is not None and order not in recipe.requires.gate_up_order:
        missing.append(f"needs gate_up_order={' or '.join(recipe.requires.gate_up_order)}, found {order}")
    return missing


def _undivided(recipe: Recipe, facts: Mapping[str, Scalar]) -> Iterator[str]:
    """A recipe without padding is for sizes of one rank that divide."""
    tp = int(facts.get("tp") or 1)
    for name, rule in recipe.requires.multiples.items():
        size = facts.get(name)
        if not isinstance(size, int):
            continue
        for part in _of_ranks(name, size, tp, GROUP.get(recipe.call.quant_type, 1)):
            multiple = multiple_for(rule, part)
            if part % multiple:
                padded = -(-part // multiple) * multiple
                text = f"needs {name} at tp {tp} in multiples of {multiple}, found {part} (padded it is {padded}"
                yield f"{text}{_where_it_divides(name, size, tp, rule)})"
                break


def _where_it_divides(name: str, size: int, tp: int, rule: PadRule) -> str:
    """Name the smaller tensor-parallel sizes that need no padding; ep, which cuts no dimension, is another way."""
    shares = {ranks: size // ranks for ranks in range(1, tp) if size % ranks == 0 and name != "hidden_size"}
    whole = [str(ranks) for ranks, share in shares.items() if not share % multiple_for(rule, share)]
    return f"; it divides at tp {', '.join(whole)}, and ep does not cut it" if whole else ""


def _of_ranks(name: str, size: int, tp: int, group: int) -> tuple[int, ...]:
    """Sizes of a dimension on the ranks: equal shares where whole groups would leave a rank with nothing."""
    if name == "hidden_size":
        return (size,)
    try:
        return tuple(piece.size for piece in cut(size, tp, group))
    except QueryError:
        return (-(-size // tp),)


def _other_weights(book: Book, recipe: Recipe, facts: Mapping[str, Scalar]) -> Iterator[str]:
    """A query may override what the model's entry says of its weights; a recipe is for one kind of them."""
    w13 = recipe.tensors["w13_weight"]
    for field, has in (("weight_dtype", w13.dtype), ("quant_type", recipe.call.quant_type)):
        if not recipe.source and facts.get(field) not in (None, has):
            yield str(Miss(field, has, facts[field]))
    if facts.get("gated") is False and book.layout(w13.layout).pattern.splits_gate_up:
        yield f"{w13.layout} interleaves gate and up, and the model is not gated"
