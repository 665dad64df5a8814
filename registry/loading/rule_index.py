"""Index of rules by a value that each needs.

So that a query tests a few rules and not all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from preshuffle.registry.entries import Condition, Recipe, Rule, Scalar

CIRCUMSTANCES = frozenset({"activation_dtype", "tp", "ep", "cu_num", "aiter", "rocm", "engine_version"})
"""Fields that can change while model, checkpoint, GPU and engine stay what they are; so can every switch."""

_SHORTEST_PREFIX = 3
_rank = attrgetter("rank")
Key = tuple[str, Scalar]
Tests = tuple[tuple[str, Callable[[Scalar], bool]], ...]


def is_circumstance(field: str) -> bool:
    """Whether a field describes circumstances, not the subject, of a deployment."""
    return field in CIRCUMSTANCES or field.startswith("env.")


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A rule with its tests.

    Attributes:
        rank: its place in the order of judgement, 0 for the most specific.
        recipe: what it uses; None where it says that nothing works.
        conditions: by flat field name.
        subject: the fields that are about the subject, each with its test.
        circumstances: the others.
        named: the fields, engine and switches apart, that it gives as a value or a list.
    """

    rank: int
    rule: Rule
    recipe: Recipe | None
    conditions: Mapping[str, Condition]
    subject: Tests
    circumstances: Tests
    named: tuple[str, ...]

    def misses(self, facts: Mapping[str, Scalar], most: int) -> tuple[str, ...] | None:
        """Return the circumstances that do not hold.

        None where the subject is another, or more than ``most`` fail.
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
class _Shelf:
    """Rules that are found together: under a value, under the text that a glob begins with, or always."""

    at: dict[str, dict[Scalar, list[Prepared]]] = field(default_factory=dict)
    prefixes: dict[str, dict[str, list[Prepared]]] = field(default_factory=dict)
    always: list[Prepared] = field(default_factory=list)

    def put(self, item: Prepared, keys: Iterable[Key]) -> None:
        for name, value in keys:
            if name.endswith("*"):
                self.prefixes.setdefault(name[:-1], {}).setdefault(str(value), []).append(item)
            else:
                self.at.setdefault(name, {}).setdefault(value, []).append(item)

    def find(self, facts: Mapping[str, Scalar]) -> list[Prepared]:
        found = [*self.always]
        for name, by_value in self.at.items():
            found += by_value.get(facts.get(name), ())
        for name, prefixed in self.prefixes.items():
            text = facts.get(name)
            if isinstance(text, str):
                for length in range(_SHORTEST_PREFIX, len(text) + 1):
                    found += prefixed.get(text[:length], ())
        return found


class RuleIndex:
    """Rules indexed by engine and by their subject's rarest value.

    Such a value is a model, a GPU or a size.

    A rule about circumstances alone lies under the rarest of those; one of ranges and short globs alone is always
    looked at.

    Attributes:
        prepared: the rules, the most specific first.
        fields: what any of them has a condition on.
    """

    def __init__(self, rules: Iterable[Rule], recipes: Mapping[str, Recipe]) -> None:
        """Prepare and sort the rules."""
        order = sorted(rules, key=_order)
        self.prepared = tuple(_prepare(rank, rule, recipes) for rank, rule in enumerate(order))
        self.fields = tuple(sorted({name for item in self.prepared for name in item.conditions}))
        self._shelves: dict[Scalar, _Shelf] = {}
        self._any_engine = _Shelf()
        uses = Counter(key for rule in order for keys in _keys(rule.conditions()) for key in keys)
        for item in self.prepared:
            self._file(item, uses)

    def _file(self, item: Prepared, uses: Counter[Key]) -> None:
        engine = item.conditions.get("engine")
        engines = engine.values if engine else ()
        shelves = [self._shelves.setdefault(name, _Shelf()) for name in dict.fromkeys(engines)] or [self._any_engine]
        offers = [keys for keys in _keys(item.conditions) if keys[0][0] != "engine"]
        about = [keys for keys in offers if not is_circumstance(keys[0][0].removesuffix("*"))]
        for shelf in shelves:
            if offers:
                shelf.put(item, min(about or offers, key=lambda keys: max(uses[key] for key in keys)))
            else:
                shelf.always.append(item)

    def candidates(self, facts: Mapping[str, Scalar]) -> list[Prepared]:
        """Return every rule that may match, the most specific first.

        Rules that fail in circumstances only are among them.
        """
        found = self._any_engine.find(facts)
        shelf = self._shelves.get(facts.get("engine"))
        if shelf is not None:
            found += shelf.find(facts)
        found.sort(key=_rank)
        return found


def _order(rule: Rule) -> tuple[tuple[int, ...], str]:
    return tuple(-part for part in rule.specificity), rule.id


def _prepare(rank: int, rule: Rule, recipes: Mapping[str, Recipe]) -> Prepared:
    conditions = rule.conditions()
    tests = [(field, condition.test()) for field, condition in conditions.items()]
    return Prepared(
        rank,
        rule,
        None if rule.use is None else recipes[rule.use],
        conditions,
        tuple(test for test in tests if not is_circumstance(test[0])),
        tuple(test for test in tests if is_circumstance(test[0])),
        tuple(name for name, condition in conditions.items() if condition.kind != "pattern" and _is_named(name)),
    )


def _is_named(field: str) -> bool:
    return field != "engine" and not field.startswith("env.")


def _keys(conditions: Mapping[str, Condition]) -> Iterator[tuple[Key, ...]]:
    """Yield, for each condition that can be looked up, the keys under all of which its rule must lie.

    A glob is looked up by the text before its first wildcard; such a key's field ends in ``*``.
    """
    for name, condition in conditions.items():
        if condition.values and not condition.versioned:
            yield tuple(dict.fromkeys((name, value) for value in condition.values))
        elif condition.glob is not None:
            prefix = condition.glob.replace("?", "*").split("*")[0]
            if len(prefix) >= _SHORTEST_PREFIX:
                yield ((f"{name}*", prefix),)
