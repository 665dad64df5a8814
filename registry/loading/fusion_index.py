"""Index of the fusions of each engine, the most specific first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from preshuffle.registry.entries import Condition, FusionEntry, Scalar

Tests = tuple[tuple[str, Callable[[Scalar], bool]], ...]


@dataclass(frozen=True, slots=True, eq=False)
class PreparedFusion:
    """Fusion entry with its conditions compiled into tests.

    Attributes:
        tests: all must hold.
        choices: sets of tests of which one must hold; empty where there are none.
    """

    entry: FusionEntry
    tests: Tests
    choices: tuple[Tests, ...]

    def holds(self, facts: Mapping[str, Scalar]) -> bool:
        """Whether the conditions on known facts hold; AITER's features are not tested."""
        if not _all_hold(self.tests, facts):
            return False
        return not self.choices or any(_all_hold(choice, facts) for choice in self.choices)


class FusionIndex:
    """Index of fusion entries by engine.

    Attributes:
        switches: the switches that any entry has a condition on.
    """

    def __init__(self, entries: Iterable[FusionEntry]) -> None:
        """Compile and sort the entries."""
        order = sorted(entries, key=_order)
        self._by_engine: dict[str, tuple[PreparedFusion, ...]] = {}
        for entry in order:
            self._by_engine[entry.engine] = (*self._by_engine.get(entry.engine, ()), _prepare(entry))
        sets = [conditions for entry in order for conditions in (entry.conditions(), *entry.choices())]
        names = {name for conditions in sets for name in conditions}
        self.switches = tuple(sorted(name for name in names if name.startswith("env.")))

    def of(self, engine: str | None) -> tuple[PreparedFusion, ...]:
        """Return an engine's entries; none of an engine that no entry names."""
        return self._by_engine.get(engine, ()) if engine else ()


def _all_hold(tests: Tests, facts: Mapping[str, Scalar]) -> bool:
    for name, holds in tests:
        value = facts.get(name)
        if value is None or not holds(value):
            return False
    return True


def _order(entry: FusionEntry) -> tuple[tuple[int, ...], str]:
    return tuple(-part for part in entry.specificity), entry.id


def _prepare(entry: FusionEntry) -> PreparedFusion:
    return PreparedFusion(entry, _tests(entry.conditions()), tuple(map(_tests, entry.choices())))


def _tests(conditions: Mapping[str, Condition]) -> Tests:
    return tuple((name, condition.test()) for name, condition in conditions.items() if name != "engine")
