"""Ties: pairs of rules, equally specific, that match a common query.

Decided on the conditions, never sampled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Protocol, TypeVar

from preshuffle.registry.entries import Condition, Scalar, Specificity


class Ranked(Protocol):
    """Entry of which the most specific that matches decides."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def specificity(self) -> Specificity:
        """How specific it is."""

    def conditions(self) -> Mapping[str, Condition]:
        """Return its conditions by flat field name."""


R = TypeVar("R", bound=Ranked)

_FEW = 64
"""Pairs that are compared one by one; more rules than that are first split by a field that keeps them apart."""


def ties(rules: Iterable[R]) -> Iterator[tuple[R, R]]:
    """Yield every two rules that tie, each pair once.

    Rules are split by the exact values and lists of one field after the other: those under different values can never
    match one query, so that a book of many rules does not compare each with each.
    """
    groups: dict[tuple[int, ...], list[R]] = {}
    for rule in rules:
        groups.setdefault(rule.specificity, []).append(rule)
    for group in groups.values():
        seen: set[tuple[str, str]] = set()
        for first, second in _within(group, frozenset()):
            if (first.id, second.id) not in seen and can_both_match(first, second):
                seen |= {(first.id, second.id), (second.id, first.id)}
                yield first, second


def can_both_match(first: Ranked, second: Ranked) -> bool:
    """Whether some query satisfies both rules."""
    left, right = first.conditions(), second.conditions()
    return all(left[name].overlaps(right[name]) for name in left.keys() & right.keys())


def _within(rules: Sequence[R], used: frozenset[str]) -> Iterator[tuple[R, R]]:
    """Yield the pairs of one group that no split has separated."""
    field = _splitter(rules, used) if len(rules) ** 2 > _FEW else None
    if field is None:
        yield from combinations(rules, 2)
        return
    buckets, rest = _split(rules, field)
    used |= {field}
    for bucket in buckets.values():
        yield from _within(bucket, used)
    yield from _within(rest, used)
    yield from _between(_bucketed(buckets), rest, used)


def _between(left: Sequence[R], right: Sequence[R], used: frozenset[str]) -> Iterator[tuple[R, R]]:
    """Yield the pairs of two groups that no split has separated."""
    if not left or not right:
        return
    field = _splitter([*left, *right], used) if len(left) * len(right) > _FEW else None
    if field is None:
        yield from product(left, right)
        return
    (left_buckets, left_rest), (right_buckets, right_rest) = _split(left, field), _split(right, field)
    used |= {field}
    for value in left_buckets.keys() & right_buckets.keys():
        yield from _between(left_buckets[value], right_buckets[value], used)
    yield from _between(left_rest, right, used)
    yield from _between(_bucketed(left_buckets), right_rest, used)


def _bucketed(buckets: Mapping[Scalar, Sequence[R]]) -> list[R]:
    return list({rule.id: rule for bucket in buckets.values() for rule in bucket}.values())


def _splitter(rules: Sequence[R], used: frozenset[str]) -> str | None:
    """Return the field that most of the rules give exactly or as a list."""
    counts = Counter(
        name
        for rule in rules
        for name, condition in rule.conditions().items()
        if condition.values and not condition.versioned and name not in used
    )
    return counts.most_common(1)[0][0] if counts else None


def _split(rules: Sequence[R], field: str) -> tuple[dict[Scalar, list[R]], list[R]]:
    """Return the rules by their values of a field, and those that do not give it exactly."""
    buckets: dict[Scalar, list[R]] = {}
    rest: list[R] = []
    for rule in rules:
        condition = rule.conditions().get(field)
        if condition is None or not condition.values:
            rest.append(rule)
            continue
        for value in condition.values:
            buckets.setdefault(value, []).append(rule)
    return buckets, rest
