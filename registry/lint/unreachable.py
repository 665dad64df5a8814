"""Unreachable rules: always beaten by another, or lacking a requirement.

Judged by conditions and requirements alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from itertools import product

from preshuffle.registry.entries import Recipe, Requires, Rule, Scalar
from preshuffle.registry.lint.effort import Effort
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve import lacking

_REQUIRED = ("arch", "weight_dtype", "quant_type", "activation", "gate_up_order", "gated", "hidden_size")
_SHARE = ("intermediate_size", "tp")


def covered(book: Book, effort: Effort | None = None) -> Iterator[tuple[Rule, Rule]]:
    """Yield each rule that never wins, with one that covers it.

    The covering rule is more specific and matches wherever the other does.

    Raises:
        TooCostlyError: it takes more effort than is allowed.
    """
    effort = effort or Effort()
    by_value: dict[tuple[str, Scalar], list[Rule]] = {}
    by_fields: dict[frozenset[str], list[Rule]] = {}
    exact = {id: list(_exact_sets(rule)) for id, rule in book.rules.items()}
    uses = Counter(key for sets in exact.values() for keys in sets for key in keys)
    for id, rule in book.rules.items():
        keys = min(exact[id], key=lambda keys: max(uses[key] for key in keys), default=())
        for key in keys:
            by_value.setdefault(key, []).append(rule)
        if not keys:
            by_fields.setdefault(frozenset(rule.conditions()), []).append(rule)
    for id, rule in book.rules.items():
        fields = rule.conditions().keys()
        # What covers a rule has all keys of its exact values: one of each field is enough to find it.
        wider = [other for keys in exact[id] for other in by_value.get(keys[0], ())]
        wider += [other for others, group in by_fields.items() if others <= fields for other in group]
        effort.spend(len(by_fields) // 4 + len(wider) // 8)
        for other in wider:
            if other.specificity > rule.specificity:
                effort.spend(12)
                if _covers(book, other, rule):
                    yield rule, other
                    break


def _exact_sets(rule: Rule) -> Iterator[tuple[tuple[str, Scalar], ...]]:
    """Yield the keys of each field's exact values: whatever it covers has one of them."""
    for name, condition in rule.conditions().items():
        if condition.values and not condition.versioned:
            yield tuple((name, value) for value in condition.values)


def _covers(book: Book, other: Rule, rule: Rule) -> bool:
    own, theirs = rule.conditions(), other.conditions()
    if not theirs.keys() <= own.keys() or other.indivisible not in (None, rule.indivisible):
        return False
    return all(own[name].within(condition) for name, condition in theirs.items()) and _requires_no_more(
        book, other, rule
    )


def _requires_no_more(book: Book, other: Rule, rule: Rule) -> bool:
    """Whether the other rule's recipe is usable wherever this rule's is."""
    if other.use is None or other.use == rule.use:
        return True
    if rule.use is None:
        return False
    theirs, own = book.recipes[other.use], book.recipes[rule.use]
    return theirs.requires in (own.requires, Requires()) and _kind(book, theirs) == _kind(book, own)


def _kind(book: Book, recipe: Recipe) -> tuple[str, str, bool, bool]:
    w13 = recipe.tensors["w13_weight"]
    splits = book.layout(w13.layout).pattern.splits_gate_up
    return w13.dtype, recipe.call.quant_type, bool(recipe.source), splits


class Contradictions:
    """Contradictions of rules and their recipes, memoised by facts."""

    def __init__(self, book: Book, effort: Effort | None = None) -> None:
        """Judge rules of a book."""
        self._book, self._effort = book, effort or Effort()
        self._known: dict[Hashable, list[str]] = {}

    def of(self, rule: Rule) -> str | None:
        """Return what a rule's recipe always lacks, or None.

        Raises:
            TooCostlyError: it takes more effort than is allowed.
        """
        if rule.use is None:
            return None
        choices = _choices(self._book, rule)
        fewest: list[str] = []
        for values in product(*choices.values()):
            unmet = self._lacking(rule, dict(zip(choices, values, strict=True)))
            if not unmet:
                return None
            fewest = unmet if not fewest or len(unmet) < len(fewest) else fewest
        return "; ".join(fewest)

    def _lacking(self, rule: Rule, facts: Mapping[str, Scalar]) -> list[str]:
        key = (rule.use, rule.shard, tuple(facts.items()))
        self._effort.spend(1)
        if key not in self._known:
            recipe = self._book.recipes[str(rule.use)]
            self._effort.spend(30 + 3 * int(facts.get("tp") or 1) + 2 * len(self._book.refusing))
            self._known[key] = lacking(self._book, recipe, facts, rule.shard)
        return self._known[key]


def _choices(book: Book, rule: Rule) -> dict[str, tuple[Scalar, ...]]:
    """Return the values of the facts on which recipes have requirements, as far as a rule gives them."""
    conditions = rule.conditions()
    choices: dict[str, tuple[Scalar, ...]] = {
        name: conditions[name].values for name in _REQUIRED if name in conditions and conditions[name].values
    }
    choices.setdefault("arch", tuple(book.archs))
    share = [conditions[name].values if name in conditions else () for name in _SHARE]
    if all(share):  # a size alone says nothing of the share of a rank
        choices |= dict(zip(_SHARE, share, strict=True))
    return choices
