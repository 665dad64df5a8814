"""Table of recipe requirements: what each depends on, test and wording."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from preshuffle.registry.algebra.shard import cut
from preshuffle.registry.base.errors import QueryError
from preshuffle.registry.base.words import GROUP, QuantType, Shard
from preshuffle.registry.entries import ContractEntry, PadRule, Recipe, Rule, Scalar, multiple_for
from preshuffle.registry.layer import shard_share, why_lacking
from preshuffle.registry.loading import Book
from preshuffle.registry.values.query import read_probed

Facts = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Miss:
    """One condition or requirement that does not hold."""

    field: str
    wanted: str
    found: Scalar

    def __str__(self) -> str:
        """Say what was needed and what was found."""
        shown = str(self.found) if str(self.found).isprintable() else repr(self.found)
        found = "absent" if self.found is None else shown
        return f"needs {self.field}={self.wanted}, found {found}"


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something that a recipe may require of a query.

    Attributes:
        facts: the facts on which it depends whether it is met.
        unmet: returns a sentence for each part that is not met; unknown facts count as met.
    """

    facts: tuple[str, ...]
    unmet: Callable[[Book, Recipe, Facts], Iterable[str]]


def lacking(book: Book, recipe: Recipe, facts: Facts, shard: Shard | None = None) -> list[str]:
    """Return the requirements of a recipe that a query does not meet.

    Unknown facts (no AITER version) count as met. ``shard`` is how the rule's engine cuts, where no query says it.
    """
    if shard is not None and facts.get("shard") is None:
        facts = {**facts, "shard": shard}
    return [text for requirement in REQUIREMENTS for text in requirement.unmet(book, recipe, facts)]


def unmet(book: Book, rule: Rule, recipe: Recipe | None, facts: Facts) -> list[str]:
    """Return what keeps a rule whose conditions hold from answering.

    A rule that nothing works gives way to a contract that refuses whatever runs: what else it advises would not help.
    """
    reason = divides(rule, facts)
    found = [reason] if reason else []
    if recipe is not None:
        return [*found, *lacking(book, recipe, facts, rule.shard)]
    contract = refusal(book, facts, None)
    return [*found, contract.says] if contract else found


def divides(rule: Rule, facts: Facts) -> str | None:
    """Say which size should not be divisible, but is."""
    size, tp = facts.get("intermediate_size"), int(facts.get("tp") or 1)
    if rule.indivisible is None or not isinstance(size, int):
        return None
    quant_type: Any = facts.get("quant_type")
    share = _rank_sizes("intermediate_size", size, tp, quant_type, facts.get("shard"))[0]
    if share % rule.indivisible:
        return None
    return f"is for an intermediate_size at tp {tp} that {rule.indivisible} does not divide, found {share}"


def refusal(book: Book, facts: Facts, backend: str | None = "aiter") -> ContractEntry | None:
    """Return the contract that rules out a backend's recipes for a layer.

    None as the backend: only what rules out those of any.
    """
    run = {"reader": "aiter" if backend == "aiter" else "own"} if backend else {}
    for item in book.refusing:
        if not item.may_hold(facts):
            continue
        of_run = [condition for condition in item.run if backend is None or condition.fact in run]
        if all(condition.holds(run) for condition in of_run) and not item.excepted(run, facts):
            entry: ContractEntry = item.entry
            return entry
    return None


def _kernel(book: Book, recipe: Recipe, facts: Facts) -> Iterable[str]:
    entry = refusal(book, facts, recipe.call.backend)
    return () if entry is None else (entry.says,)


def _arch_features(book: Book, recipe: Recipe, facts: Facts) -> Iterable[str]:
    arch = book.archs.get(str(facts.get("arch")))
    if arch is None:
        return ()
    missing = [name for name in recipe.requires.arch if name not in arch.features]
    return [arch.lacks.get(name, f"{arch.id} has no {name}") for name in missing]


def _aiter_features(book: Book, recipe: Recipe, facts: Facts) -> Iterable[str]:
    version, probed = facts.get("aiter"), facts.get("aiter_features")
    if not recipe.requires.aiter or not (version or probed):
        return ()
    build = None if version is None else str(version), read_probed(str(probed or ""))
    reasons = (why_lacking(book.features[name], *build) for name in recipe.requires.aiter)
    return [reason for reason in reasons if reason]


def _one_of(field: str, allowed: Callable[[Recipe], tuple[str, ...]]) -> Requirement:
    """Return the requirement that a field has an allowed value.

    No values allow all.
    """

    def unmet(_: Book, recipe: Recipe, facts: Facts) -> Iterable[str]:
        values, found = allowed(recipe), facts.get(field)
        return () if not values or found is None or found in values else (str(Miss(field, " or ".join(values), found)),)

    return Requirement((field,), unmet)


def _weights(value: Callable[[Recipe], str]) -> Callable[[Recipe], tuple[str, ...]]:
    """Return the kind of weights that a recipe takes.

    One that converts a source takes any.
    """
    return lambda recipe: () if recipe.source else (value(recipe),)


def _gated(book: Book, recipe: Recipe, facts: Facts) -> Iterable[str]:
    name = recipe.tensors["w13_weight"].layout
    if facts.get("gated") is False and book.layout(name).pattern.splits_gate_up:
        return (f"{name} interleaves gate and up, and the model is not gated",)
    return ()


def _router_weight(_: Book, recipe: Recipe, facts: Facts) -> Iterable[str]:
    if facts.get("router_weight_on_input") and recipe.call.router_weight.by == "refused":
        return (f"the engine does not take a router weight on the input with {recipe.id}",)
    return ()


def _multiples(_: Book, recipe: Recipe, facts: Facts) -> Iterator[str]:
    """A recipe without padding is for sizes of one rank that divide."""
    tp = int(facts.get("tp") or 1)
    for name, rule in recipe.requires.multiples.items():
        size = facts.get(name)
        if not isinstance(size, int):
            continue
        for part in _rank_sizes(name, size, tp, recipe.call.quant_type, facts.get("shard")):
            multiple = multiple_for(rule, part)
            if part % multiple:
                padded = -(-part // multiple) * multiple
                text = f"needs {name} at tp {tp} in multiples of {multiple}, found {part} (padded it is {padded}"
                yield f"{text}{_where_it_divides(name, size, tp, rule)})"
                break


def _where_it_divides(name: str, size: int, tp: int, rule: PadRule) -> str:
    """Name the smaller tensor-parallel sizes that need no padding.

    Expert parallelism, which cuts no dimension, is another way.
    """
    shares = {ranks: size // ranks for ranks in range(1, tp) if size % ranks == 0 and name != "hidden_size"}
    whole = [str(ranks) for ranks, share in shares.items() if not share % multiple_for(rule, share)]
    return f"; it divides at tp {', '.join(whole)}, and ep does not cut it" if whole else ""


def _rank_sizes(name: str, size: int, tp: int, quant_type: QuantType, shard: Scalar) -> tuple[int, ...]:
    """Return a dimension's sizes on the ranks, as their buffers are allocated.

    Equal shares, where whole groups would leave a rank with nothing.
    """
    if name == "hidden_size":
        return (size,)
    group = GROUP.get(quant_type, 1)
    if shard == "whole_blocks":
        return (shard_share("whole_blocks", size, tp, quant_type, lambda _: 1),)
    try:
        return tuple(piece.size for piece in cut(size, tp, group))
    except QueryError:
        return (-(-size // tp),)


REQUIREMENTS: tuple[Requirement, ...] = (
    Requirement(("activation", "gated", "model"), _kernel),
    Requirement(("arch",), _arch_features),
    Requirement(("aiter", "aiter_features"), _aiter_features),
    _one_of("weight_dtype", _weights(lambda recipe: recipe.tensors["w13_weight"].dtype)),
    _one_of("quant_type", _weights(lambda recipe: recipe.call.quant_type)),
    Requirement(("gated",), _gated),
    Requirement(("router_weight_on_input",), _router_weight),
    _one_of("activation", lambda recipe: recipe.requires.activation),
    Requirement(("hidden_size", "intermediate_size", "tp", "shard"), _multiples),
    _one_of("gate_up_order", lambda recipe: recipe.requires.gate_up_order),
)
"""In the order in which a refusal names them."""

REQUIRED_OF: tuple[str, ...] = tuple(fact for requirement in REQUIREMENTS for fact in requirement.facts)
"""Facts that any requirement depends on, but for what only contracts name."""


def decisive_facts(book: Book) -> tuple[str, ...]:
    """Return the facts that decide which rule answers.

    Those of rules, of requirements, and of contracts that refuse.
    """
    named = (fact for item in book.refusing for fact in item.facts)
    return tuple({*book.rule_index.fields, *REQUIRED_OF, *named})
