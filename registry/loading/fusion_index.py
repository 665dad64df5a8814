"""Index of the fusions of each engine, the most specific first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from preshuffle.registry.entries import Condition, FusionEntry, Scalar

Tests = tuple[tuple[str, Callable[[Scalar], bool]], ...]


@dataclass(frozen=True, slots=True, eq=False)
class PreparedFusion:
    """Fusion entry with its conditions compiled into tests.

    Attributes:
        tests: of facts of the layer; all must hold.
        switch_tests: of switches; all must hold.
        choices: sets of tests of which one must hold; empty where there are none.
        names: the facts and switches that any of its conditions is about.
        relaxed: the entry without the conditions on a fact, by fact, as far as it was needed.
    """

    entry: FusionEntry
    tests: Tests
    switch_tests: Tests
    choices: tuple[Tests, ...]
    names: frozenset[str]
    relaxed: dict[str, PreparedFusion] = field(default_factory=dict)

    def holds(self, facts: Mapping[str, Scalar], switches: Mapping[str, Scalar]) -> bool:
        """Whether the conditions on known facts hold; AITER's features are not tested."""
        if not (_all_hold(self.tests, facts) and _all_hold(self.switch_tests, switches)):
            return False
        return not self.choices or any(_all_hold(choice, facts) for choice in self.choices)

    def holds_without(self, name: str, facts: Mapping[str, Scalar], switches: Mapping[str, Scalar]) -> bool:
        """Whether the entry would hold without its conditions on a fact.

        False where it has none on it.
        """
        return name in self.names and self._without(name).holds(facts, switches)

    def _without(self, name: str) -> PreparedFusion:
        """Return the entry without its conditions on a fact."""
        if name not in self.relaxed:
            tests, *choices = (tuple(test for test in part if test[0] != name) for part in (self.tests, *self.choices))
            self.relaxed[name] = replace(
                self, tests=tests, choices=tuple(choices), names=self.names - {name}, relaxed={}
            )
        return self.relaxed[name]


class FusionIndex:
    """Index of fusion entries by engine.

    Attributes:
        switches: the switches that each engine's entries have a condition on.
    """

    def __init__(self, entries: Iterable[FusionEntry]) -> None:
        """Compile and sort the entries."""
        order = sorted(entries, key=_order)
        self._candidates: dict[tuple[str, str | None], tuple[PreparedFusion, ...]] = {}
        self._by_engine: dict[str, list[PreparedFusion]] = {}
        for entry in order:
            self._by_engine.setdefault(entry.engine, []).append(_prepare(entry))
        self.switches = {engine: _switches(fusions) for engine, fusions in self._by_engine.items()}

    def names(self, engine: str | None) -> bool:
        """Whether any entry is of an engine."""
        return engine in self._by_engine

    def candidates(self, engine: str, model_type: str | None) -> tuple[PreparedFusion, ...]:
        """Return an engine's entries that may hold for a model type.

        The most specific come first.
        """
        key = (engine, model_type)
        found = self._candidates.get(key)
        if found is None:
            found = tuple(fusion for fusion in self._by_engine.get(engine, ()) if _may_hold(fusion, model_type))
            self._candidates[key] = found
        return found


def _switches(fusions: Iterable[PreparedFusion]) -> tuple[str, ...]:
    return tuple(sorted({name for fusion in fusions for name in fusion.names if name.startswith("env.")}))


def _may_hold(fusion: PreparedFusion, model_type: str | None) -> bool:
    tests = [holds for name, holds in fusion.tests if name == "model_type"]
    return all(model_type is not None and holds(model_type) for holds in tests)


def _all_hold(tests: Tests, facts: Mapping[str, Scalar]) -> bool:
    for name, holds in tests:
        value = facts.get(name)
        if value is None or not holds(value):
            return False
    return True


def _order(entry: FusionEntry) -> tuple[tuple[int, ...], str]:
    return tuple(-part for part in entry.specificity), entry.id


def _prepare(entry: FusionEntry) -> PreparedFusion:
    tests = _tests(entry.conditions())
    choices = tuple(map(_tests, entry.choices()))
    names = frozenset(name for part in (tests, *choices) for name, _ in part)
    on_layer = tuple(test for test in tests if not test[0].startswith("env."))
    return PreparedFusion(entry, on_layer, tuple(test for test in tests if test not in on_layer), choices, names)


def _tests(conditions: Mapping[str, Condition]) -> Tests:
    return tuple((name, condition.test()) for name, condition in conditions.items() if name != "engine")
