"""Ties: pairs of rules, equally specific, that match a common query.

Decided on the conditions, never sampled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Protocol, TypeVar

from preshuffle.registry.base.globs import literal_prefix
from preshuffle.registry.entries import Condition, Scalar, Specificity
from preshuffle.registry.lint.effort import Effort


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
_PAIR, _GLOBS = 3, 30
"""Steps of effort that comparing a pair takes, and more where it has globs."""


def ties(rules: Iterable[R], effort: Effort | None = None) -> Iterator[tuple[R, R]]:
    """Yield every two rules that tie, each pair once.

    Rules are split by the exact values and lists of one field after the other, and by the beginnings of globs: those
    apart can never match one query, so that a book of many rules does not compare each with each.

    Raises:
        TooCostlyError: it takes more effort than is allowed.
    """
    effort = effort or Effort()
    groups: dict[tuple[int, ...], list[R]] = {}
    for rule in rules:
        groups.setdefault(rule.specificity, []).append(rule)
    for group in groups.values():
        seen: set[tuple[str, str]] = set()
        for first, second in _Pairs(effort).within(group, frozenset()):
            effort.spend(_PAIR + _GLOBS * (group[0].specificity.patterns > 0))
            if (first.id, second.id) not in seen and can_both_match(first, second):
                seen |= {(first.id, second.id), (second.id, first.id)}
                yield first, second


def can_both_match(first: Ranked, second: Ranked) -> bool:
    """Whether some query satisfies both rules."""
    left, right = first.conditions(), second.conditions()
    return all(left[name].overlaps(right[name]) for name in left.keys() & right.keys())


class _Pairs:
    """Pairs of rules that may match one query."""

    def __init__(self, effort: Effort) -> None:
        self._effort = effort

    def within(self, rules: Sequence[R], used: frozenset[str]) -> Iterator[tuple[R, R]]:
        """Yield the pairs of one group that no split has separated."""
        field = self._splitter(rules, used) if len(rules) ** 2 > _FEW else None
        if field is None:
            yield from _pairs(rules)
            return
        buckets, rest = self._split(rules, field)
        used |= {field}
        for bucket in buckets.values():
            yield from self.within(bucket, used)
        yield from self.within(rest, used)
        yield from self.between(_bucketed(buckets), rest, used)

    def between(self, left: Sequence[R], right: Sequence[R], used: frozenset[str]) -> Iterator[tuple[R, R]]:
        """Yield the pairs of two groups that no split has separated."""
        if not left or not right:
            return
        field = self._splitter([*left, *right], used) if len(left) * len(right) > _FEW else None
        if field is None:
            yield from product(left, right)
            return
        (left_buckets, left_rest), (right_buckets, right_rest) = self._split(left, field), self._split(right, field)
        used |= {field}
        for value in left_buckets.keys() & right_buckets.keys():
            yield from self.between(left_buckets[value], right_buckets[value], used)
        yield from self.between(left_rest, right, used)
        yield from self.between(_bucketed(left_buckets), right_rest, used)

    def _splitter(self, rules: Sequence[R], used: frozenset[str]) -> str | None:
        """Return the field that most of the rules give exactly or as a list."""
        self._effort.spend(len(rules))
        counts = Counter(
            name
            for rule in rules
            for name, condition in rule.conditions().items()
            if condition.values and not condition.versioned and name not in used
        )
        return counts.most_common(1)[0][0] if counts else None

    def _split(self, rules: Sequence[R], field: str) -> tuple[dict[Scalar, list[R]], list[R]]:
        """Return the rules by their values of a field, and those that do not give it exactly."""
        buckets: dict[Scalar, list[R]] = {}
        rest: list[R] = []
        for rule in rules:
            condition = rule.conditions().get(field)
            if condition is None or not condition.values:
                rest.append(rule)
                continue
            self._effort.spend(1 + len(condition.values) // 4)
            for value in condition.values:
                buckets.setdefault(value, []).append(rule)
        return buckets, rest


def _pairs(rules: Sequence[R]) -> Iterator[tuple[R, R]]:
    """Yield the pairs of rules that no exact value separates, but for globs that begin differently."""
    fields = Counter(name for rule in rules for name, condition in rule.conditions().items() if condition.glob)
    field = fields.most_common(1)[0][0] if fields and len(rules) ** 2 > _FEW else None
    by_prefix: dict[str, list[R]] = {}
    for rule in rules:
        condition = rule.conditions().get(field) if field else None
        by_prefix.setdefault(literal_prefix(condition.glob) if condition and condition.glob else "", []).append(rule)
    for prefix, group in by_prefix.items():
        yield from combinations(group, 2)
        for length in range(len(prefix)):
            yield from product(by_prefix.get(prefix[:length], ()), group)


def _bucketed(buckets: Mapping[Scalar, Sequence[R]]) -> list[R]:
    return list({rule.id: rule for bucket in buckets.values() for rule in bucket}.values())
