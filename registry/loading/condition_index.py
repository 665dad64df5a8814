"""Index of entries with conditions: contracts, deny-lists, conventions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from preshuffle.registry.base.memo import Memo
from preshuffle.registry.entries import COUNTED, MODEL_NAME, RUN_FACTS, Conditional, FactCondition, Facts, Scalar

# Facts that few deployments share: they are no part of the memo's key.
_SIZES = COUNTED | {"moe_shape"}
_COMMON = frozenset({"arch", "weight_dtype", "quant_type", "activation", "activation_dtype"})


@dataclass(frozen=True, slots=True)
class Compiled:
    """Parsed conditions of an entry: per deployment and per run."""

    entry: Any
    deployment: tuple[FactCondition, ...]
    run: tuple[FactCondition, ...]
    unless: tuple[FactCondition, ...]

    @staticmethod
    def of(entry: Conditional) -> Compiled:
        """Parse an entry's conditions."""
        when = [FactCondition.parse(name, wanted) for name, wanted in entry.when.items()]
        unless = tuple(FactCondition.parse(name, wanted) for name, wanted in entry.unless.items())
        run = tuple(condition for condition in when if condition.fact in RUN_FACTS)
        deployment = tuple(condition for condition in when if condition.fact not in RUN_FACTS)
        return Compiled(entry, deployment, run, unless)

    def may_hold(self, facts: Facts) -> bool:
        """Whether the conditions on the whole deployment hold."""
        return all(condition.holds(facts) for condition in self.deployment)

    def holds(self, run: Facts, deployment: Facts) -> bool:
        """Whether the run's conditions hold and no work-around is in place."""
        for condition in self.run:
            if not condition.holds(run):
                return False
        if not self.unless:
            return True
        return not all(condition.holds(run if condition.fact in run else deployment) for condition in self.unless)


class Entries:
    """Entries indexed by one value that each needs.

    A deployment that has none of those values never meets them.
    """

    def __init__(self, entries: Iterable[Conditional]) -> None:
        """Compile the entries and index them."""
        self._always: list[Compiled] = []
        self._by_value: dict[tuple[str, Scalar], list[Compiled]] = {}
        self._memo = Memo()
        named = {MODEL_NAME}
        for compiled in map(Compiled.of, entries):
            named.update(condition.fact for condition in compiled.deployment)
            needs = [c for c in compiled.deployment if c.plain_values and c.fact not in _SIZES]
            needs.sort(key=lambda condition: (not condition.fact.startswith("env."), condition.fact in _COMMON))
            if not needs:
                self._always.append(compiled)
            for value in needs[0].plain_values if needs else ():
                self._by_value.setdefault((needs[0].fact, value), []).append(compiled)
        self._words = tuple(sorted(named - _SIZES))

    def may_hold(self, facts: Facts) -> list[Compiled]:
        """Return the entries whose conditions on the whole deployment hold."""
        key = tuple(map(facts.get, self._words))
        candidates = self._memo.get("candidates", key, lambda: self._candidates(facts))
        return [compiled for compiled, counted in candidates if all(condition.holds(facts) for condition in counted)]

    def _candidates(self, facts: Facts) -> tuple[tuple[Compiled, tuple[FactCondition, ...]], ...]:
        return tuple(self._near({name: facts[name] for name in self._words if name in facts}))

    def _near(self, words: Facts) -> Iterator[tuple[Compiled, tuple[FactCondition, ...]]]:
        """Every entry whose conditions hold but for those on sizes, which few deployments share, and these."""
        candidates = list(self._always)
        for item in words.items():
            candidates += self._by_value.get(item, ())
        if MODEL_NAME in words:
            named = self._by_value.get(("model", words[MODEL_NAME]), ())
            candidates += [compiled for compiled in named if compiled not in candidates]
        for compiled in candidates:
            if all(condition.holds(words) for condition in compiled.deployment if condition.fact not in _SIZES):
                yield compiled, tuple(condition for condition in compiled.deployment if condition.fact in _SIZES)
