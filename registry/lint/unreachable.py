"""Unreachable rules: always beaten by another, or lacking a requirement.

Judged by conditions and requirements alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from preshuffle.registry.entries import Recipe, Requires, Rule, Scalar
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve import lacking

_REQUIRED = ("arch", "weight_dtype", "quant_type", "activation", "gate_up_order", "gated", "hidden_size")
_SHARE = ("intermediate_size", "tp")


def covered(book: Book) -> Iterator[tuple[Rule, Rule]]:
    """Yield each rule that never wins, with one that covers it.

    The covering rule is more specific and matches wherever the other does.
    """
    by_fields: dict[frozenset[str], list[Rule]] = {}
    for rule in book.rules.values():
        by_fields.setdefault(frozenset(rule.conditions()), []).append(rule)
    for fields, rules in by_fields.items():
        wider = [rule for others, group in by_fields.items() if others <= fields for rule in group]
        for rule in rules:
            cover = next((other for other in wider if _covers(book, other, rule)), None)
            if cover is not None:
                yield rule, cover


def _covers(book: Book, other: Rule, rule: Rule) -> bool:
    if other.specificity <= rule.specificity:
        return False
    own, theirs = rule.conditions(), other.conditions()
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


def contradiction(book: Book, rule: Rule) -> str | None:
    """Return what a rule's recipe always lacks, or None."""
    if rule.use is None:
        return None
    conditions = rule.conditions()
    choices: dict[str, tuple[Scalar, ...]] = {
        name: conditions[name].values for name in _REQUIRED if name in conditions and conditions[name].values
    }
    choices.setdefault("arch", tuple(book.archs))
    share = [conditions[name].values if name in conditions else () for name in _SHARE]
    if all(share):  # a size alone says nothing of the share of a rank
        choices |= dict(zip(_SHARE, share, strict=True))
    fewest: list[str] = []
    for values in product(*choices.values()):
        facts: Mapping[str, Scalar] = dict(zip(choices, values, strict=True))
        unmet = lacking(book, book.recipes[rule.use], facts, rule.shard)
        if not unmet:
            return None
        fewest = unmet if not fewest or len(unmet) < len(fewest) else fewest
    return "; ".join(fewest)
