"""Index of rules by a value that each requires.

A query tests the few rules that it finds there, not all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter

from preshuffle.registry.entries import Condition, Recipe, Rule, Scalar

CIRCUMSTANCES = frozenset(
    {"activation_dtype", "tp", "ep", "dp", "shard", "all_to_all", "cu_num", "aiter", "rocm", "engine_version"}
)
"""Fields that can change while model, checkpoint, GPU and engine stay the same; every switch is one, too."""

_SHORTEST_PREFIX = 3
_rank = attrgetter("rank")
Key = tuple[str, Scalar]
Tests = tuple[tuple[str, Callable[[Scalar], bool]], ...]


def is_circumstance(field: str) -> bool:
    """Whether a field describes circumstances, not the subject, of a deployment."""
    return field in CIRCUMSTANCES or field.startswith("env.")


@dataclass(frozen=True, eq=False)
class Prepared:
    """Rule with its conditions, compiled into tests when first needed.

    Attributes:
        rank: position by specificity, 0 for the most specific.
        recipe: the recipe that it chooses; None where it says that nothing works.
        conditions: by flat field name.
    """

    rank: int
    rule: Rule
    recipe: Recipe | None
    conditions: Mapping[str, Condition]

    @cached_property
    def subject(self) -> Tests:
        """Tests of the fields about model, checkpoint, GPU and engine."""
        return tuple((name, one.test()) for name, one in self.conditions.items() if not is_circumstance(name))

    @cached_property
    def circumstances(self) -> Tests:
        """Tests of the other fields (``is_circumstance``)."""
        return tuple((name, one.test()) for name, one in self.conditions.items() if is_circumstance(name))

    @cached_property
    def named(self) -> tuple[str, ...]:
        """Fields with exact values or lists, without engine and switches."""
        return tuple(name for name, one in self.conditions.items() if one.kind != "pattern" and _is_named(name))

    def misses(self, facts: Mapping[str, Scalar], most: int) -> tuple[str, ...] | None:
        """Return the circumstances that do not hold.

        None where the subject does not match, or more than ``most`` circumstances fail.
        """
        for name, holds in self.subject:
            if not holds(facts.get(name)):
                return None
        missed: tuple[str, ...] = ()
        for name, holds in self.circumstances:
            if not holds(facts.get(name)):
                if len(missed) == most:
                    return None
                missed += (name,)
        return missed


@dataclass(slots=True)
class _Bucket:
    """Rules of one engine, by exact value or by a glob's literal prefix; ``always`` holds the rest."""

    by_value: dict[str, dict[Scalar, list[Prepared]]] = field(default_factory=dict)
    prefixes: dict[str, dict[str, list[Prepared]]] = field(default_factory=dict)
    always: list[Prepared] = field(default_factory=list)

    def insert(self, item: Prepared, keys: Iterable[Key]) -> None:
        for name, value in keys:
            if name.endswith("*"):
                self.prefixes.setdefault(name[:-1], {}).setdefault(str(value), []).append(item)
            else:
                self.by_value.setdefault(name, {}).setdefault(value, []).append(item)

    def find(self, facts: Mapping[str, Scalar]) -> list[Prepared]:
        found = [*self.always]
        for name, rules in self.by_value.items():
            found += rules.get(facts.get(name), ())
        for name, prefixed in self.prefixes.items():
            text = facts.get(name)
            if isinstance(text, str):
                for length in range(_SHORTEST_PREFIX, len(text) + 1):
                    found += prefixed.get(text[:length], ())
        return found


class RuleIndex:
    """Index of rules by engine, then by the rarest value they require.

    Such a value is a model, a GPU or a size. Rules about circumstances alone are indexed by the rarest of those; rules
    of ranges and short globs alone are candidates of every query.

    Attributes:
        prepared: the rules, the most specific first.
        fields: what any of them has a condition on.
    """

    def __init__(self, rules: Iterable[Rule], recipes: Mapping[str, Recipe]) -> None:
        """Prepare and sort the rules."""
        order = sorted(rules, key=_order)
        self.prepared = tuple(_prepare(rank, rule, recipes) for rank, rule in enumerate(order))
        self.fields = tuple(sorted({name for item in self.prepared for name in item.conditions}))
        self._by_engine: dict[Scalar, _Bucket] = {}
        self._any_engine = _Bucket()
        keys = [tuple(_keys(item.conditions)) for item in self.prepared]
        uses = Counter(key for of_rule in keys for of_condition in of_rule for key in of_condition)
        for item, of_rule in zip(self.prepared, keys, strict=True):
            self._insert(item, of_rule, uses)

    def _insert(self, item: Prepared, keys: Iterable[tuple[Key, ...]], uses: Counter[Key]) -> None:
        engine = item.conditions.get("engine")
        engines = engine.values if engine else ()
        buckets = [self._by_engine.setdefault(name, _Bucket()) for name in dict.fromkeys(engines)] or [self._any_engine]
        key_sets = [some for some in keys if some[0][0] != "engine"]
        on_subject = [some for some in key_sets if not is_circumstance(some[0][0].removesuffix("*"))]
        rarest = min(on_subject or key_sets, key=lambda some: max(map(uses.__getitem__, some)), default=())
        for bucket in buckets:
            if rarest:
                bucket.insert(item, rarest)
            else:
                bucket.always.append(item)

    def candidates(self, facts: Mapping[str, Scalar]) -> list[Prepared]:
        """Return every rule that may match, the most specific first.

        Rules that fail in circumstances only are among them.
        """
        found = self._any_engine.find(facts)
        bucket = self._by_engine.get(facts.get("engine"))
        if bucket is not None:
            found += bucket.find(facts)
        found.sort(key=_rank)
        return found


def _order(rule: Rule) -> tuple[tuple[int, ...], str]:
    return tuple(-part for part in rule.specificity), rule.id


def _prepare(rank: int, rule: Rule, recipes: Mapping[str, Recipe]) -> Prepared:
    return Prepared(rank, rule, None if rule.use is None else recipes[rule.use], rule.conditions())


def _is_named(field: str) -> bool:
    return field != "engine" and not field.startswith("env.")


def _keys(conditions: Mapping[str, Condition]) -> Iterator[tuple[Key, ...]]:
    """Yield, for each condition that can be indexed, the keys under which its rule must be inserted.

    A glob is indexed by the text before its first wildcard; such a key's field ends in ``*``.
    """
    for name, condition in conditions.items():
        if condition.values and not condition.versioned:
            yield tuple(dict.fromkeys((name, value) for value in condition.values))
        elif condition.glob is not None:
            prefix = condition.glob.replace("?", "*").split("*")[0]
            if len(prefix) >= _SHORTEST_PREFIX:
                yield ((f"{name}*", prefix),)
