"""Index of entries with conditions: contracts, deny-list, pad conventions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from preshuffle.registry.base.memo import Memo
from preshuffle.registry.entries import COUNTED, MODEL_NAME, RUN_FACTS, Conditional, FactCondition, Facts, Scalar

# Facts that few deployments share: they are left out of the memo's key.
_SIZES = COUNTED | {"moe_shape"}
_COMMON = frozenset({"arch", "weight_dtype", "quant_type", "activation", "activation_dtype"})


@dataclass(frozen=True, slots=True)
class Compiled:
    """Parsed conditions of an entry: per deployment and per run."""

    entry: Any
    deployment: tuple[FactCondition, ...]
    run: tuple[FactCondition, ...]
    unless: tuple[tuple[FactCondition, ...], ...]

    @staticmethod
    def of(entry: Conditional) -> Compiled:
        """Parse an entry's conditions."""
        when = [FactCondition.parse(name, wanted) for name, wanted in entry.when.items()]
        unless = tuple(
            tuple(FactCondition.parse(name, wanted) for name, wanted in conditions.items())
            for conditions in entry.unless
        )
        run = tuple(condition for condition in when if condition.fact in RUN_FACTS)
        deployment = tuple(condition for condition in when if condition.fact not in RUN_FACTS)
        return Compiled(entry, deployment, run, unless)

    @property
    def facts(self) -> set[str]:
        """The facts on which it depends whether the entry holds."""
        sets = (self.deployment, self.run, *self.unless)
        return {fact for conditions in sets for condition in conditions for fact in condition.facts}

    def may_hold(self, facts: Facts) -> bool:
        """Whether the entry's conditions on the deployment hold."""
        return all(condition.holds(facts) for condition in self.deployment)

    def holds(self, run: Facts, deployment: Facts) -> bool:
        """Whether the run's conditions hold and no work-around is in place."""
        return all(condition.holds(run) for condition in self.run) and not self.excepted(run, deployment)

    def excepted(self, run: Facts, deployment: Facts) -> bool:
        """Whether a work-around is in place."""
        return any(
            all(condition.holds(run if condition.fact in run else deployment) for condition in conditions)
            for conditions in self.unless
        )


class Entries:
    """Index of entries by one value that each requires.

    A deployment without that value skips the entry.
    """

    def __init__(self, entries: Iterable[Conditional]) -> None:
        """Compile the entries and index them."""
        self._always: list[Compiled] = []
        self._by_value: dict[tuple[str, Scalar], list[Compiled]] = {}
        self._memo = Memo()
        fact_names = {MODEL_NAME}
        exceptions: set[str] = set()
        for compiled in map(Compiled.of, entries):
            fact_names.update(condition.fact for condition in compiled.deployment)
            exceptions.update(condition.fact for group in compiled.unless for condition in group)
            keys = [c for c in compiled.deployment if c.plain_values and c.fact not in _SIZES]
            keys.sort(key=lambda condition: (not condition.fact.startswith("env."), condition.fact in _COMMON))
            if not keys:
                self._always.append(compiled)
            for value in keys[0].plain_values if keys else ():
                self._by_value.setdefault((keys[0].fact, value), []).append(compiled)
        self._fact_names = tuple(sorted(fact_names - _SIZES))
        self._all_facts = fact_names | exceptions

    def reads(self, fact: str) -> bool:
        """Return whether any entry has a condition on a fact."""
        return fact in self._all_facts

    def may_hold(self, facts: Facts) -> list[Compiled]:
        """Return the entries whose conditions on the deployment hold."""
        key = tuple(map(facts.get, self._fact_names))
        candidates = self._memo.get("candidates", key, lambda: self._candidates(facts))
        return [compiled for compiled, on_sizes in candidates if all(condition.holds(facts) for condition in on_sizes)]

    def _candidates(self, facts: Facts) -> tuple[tuple[Compiled, tuple[FactCondition, ...]], ...]:
        return tuple(self._without_sizes({name: facts[name] for name in self._fact_names if name in facts}))

    def _without_sizes(self, facts: Facts) -> Iterator[tuple[Compiled, tuple[FactCondition, ...]]]:
        """Yield each entry whose conditions hold, those on sizes apart, with its conditions on sizes."""
        candidates = list(self._always)
        for item in facts.items():
            candidates += self._by_value.get(item, ())
        if MODEL_NAME in facts:
            by_name = self._by_value.get(("model", facts[MODEL_NAME]), ())
            candidates += [compiled for compiled in by_name if compiled not in candidates]
        for compiled in candidates:
            if all(condition.holds(facts) for condition in compiled.deployment if condition.fact not in _SIZES):
                yield compiled, tuple(condition for condition in compiled.deployment if condition.fact in _SIZES)
