"""One look at a deployment: its scene, one possible call, the runs that follow, and which entries of the book hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from preshuffle.registry.check.backends import Backends
from preshuffle.registry.check.entries import Conditional, ContractEntry, KnownBadEntry
from preshuffle.registry.check.facts import COUNTED, MODEL_NAME, RUN_FACTS, FactCondition, Facts
from preshuffle.registry.check.runs import Run
from preshuffle.registry.check.scene import Scene
from preshuffle.registry.check.worlds import World
from preshuffle.registry.condition import Scalar
from preshuffle.registry.kernels import KernelTables

TOO_LONG = 4
_CACHED = 4096
_COMMON = frozenset({"arch", "weight_dtype", "quant_type", "activation", "activation_dtype"})


@dataclass(frozen=True, slots=True)
class Compiled:
    """An entry's conditions, parsed; those on the whole deployment apart from those on one run."""

    entry: Any
    whole: tuple[FactCondition, ...]
    run: tuple[FactCondition, ...]
    unless: tuple[FactCondition, ...]

    @staticmethod
    def of(entry: Conditional) -> Compiled:
        """Parse an entry's conditions."""
        when = [FactCondition.parse(name, wanted) for name, wanted in entry.when.items()]
        unless = tuple(FactCondition.parse(name, wanted) for name, wanted in entry.unless.items())
        run = tuple(condition for condition in when if condition.fact in RUN_FACTS)
        whole = tuple(condition for condition in when if condition.fact not in RUN_FACTS)
        return Compiled(entry, whole, run, unless)

    def may_hold(self, facts: Facts) -> bool:
        """Whether the conditions on the whole deployment hold."""
        return all(condition.holds(facts) for condition in self.whole)

    def holds(self, run: Facts, whole: Facts) -> bool:
        """Whether the conditions on a run hold, and no work-around is in place."""
        for condition in self.run:
            if not condition.holds(run):
                return False
        if not self.unless:
            return True
        return not all(condition.holds(run if condition.fact in run else whole) for condition in self.unless)


class Entries:
    """Entries by one of the values that they need: a deployment that has none of those values never meets them."""

    def __init__(self, entries: Iterable[Conditional]) -> None:
        """Compile the entries and index them."""
        self._always: list[Compiled] = []
        self._by_value: dict[tuple[str, Scalar], list[Compiled]] = {}
        self._known: dict[tuple[tuple[str, Scalar], ...], list[tuple[Compiled, tuple[FactCondition, ...]]]] = {}
        for compiled in map(Compiled.of, entries):
            needs = [c for c in compiled.whole if c.plain_values and c.fact not in COUNTED]
            needs.sort(key=lambda condition: (not condition.fact.startswith("env."), condition.fact in _COMMON))
            if not needs:
                self._always.append(compiled)
            for value in needs[0].plain_values if needs else ():
                self._by_value.setdefault((needs[0].fact, value), []).append(compiled)

    def may_hold(self, facts: Facts) -> list[Compiled]:
        """Return the entries whose conditions on the whole deployment hold."""
        words = [item for item in facts.items() if item[0] not in COUNTED]
        key = tuple(words)
        near = self._known.get(key)
        if near is None:
            if len(self._known) >= _CACHED:
                self._known.clear()
            near = self._known[key] = list(self._near(dict(words)))
        return [compiled for compiled, counted in near if all(condition.holds(facts) for condition in counted)]

    def _near(self, words: Facts) -> Iterator[tuple[Compiled, tuple[FactCondition, ...]]]:
        """Every entry whose conditions hold but for those on sizes, which few deployments share, and these."""
        candidates = list(self._always)
        for item in words.items():
            candidates += self._by_value.get(item, ())
        if MODEL_NAME in words:
            named = self._by_value.get(("model", words[MODEL_NAME]), ())
            candidates += [compiled for compiled in named if compiled not in candidates]
        for compiled in candidates:
            if all(condition.holds(words) for condition in compiled.whole if condition.fact not in COUNTED):
                yield compiled, tuple(condition for condition in compiled.whole if condition.fact in COUNTED)


@dataclass(frozen=True, slots=True)
class Look:
    """What a rule looks at.

    Attributes:
        world: the call that is supposed; None where not even a guess is possible.
        runs: what ran or will run in it.
        contracts: contracts that are broken, with the runs that break them.
        listed: deny-list entries that hold, with their runs.
    """

    scene: Scene
    world: World | None
    runs: tuple[Run, ...]
    backends: Backends
    tables: KernelTables | None
    contracts: Sequence[tuple[ContractEntry, tuple[Run, ...]]] = ()
    listed: Sequence[tuple[KnownBadEntry, tuple[Run, ...]]] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def readers(self) -> frozenset[str]:
        """Return the kinds of reader: ``aiter``, ``own``, ``unknown``."""
        return frozenset(run.reader for run in self.runs)


def holding(survivors: Sequence[Compiled], scene: Scene, runs: Sequence[Run], facts: Sequence[Facts]) -> list[Any]:
    """Return ``(entry, runs)`` for every entry that holds, with the runs (and their facts) for which it does."""
    found = []
    for compiled in survivors:
        hits = tuple(run for run, known in zip(runs, facts, strict=True) if compiled.holds(known, scene.facts))
        if hits:
            found.append((compiled.entry, hits))
    return found


def at(runs: Sequence[Run]) -> str:
    """Say at which token counts some runs happen, neighbours merged."""
    if any(run.lo is None for run in runs):
        return "at every token count"
    spans: list[tuple[int, int | None]] = []
    for lo, hi in sorted({(run.lo or 1, run.hi) for run in runs}, key=lambda span: span[0]):
        last = spans[-1] if spans else None
        if last is not None and last[1] is not None and lo <= last[1] + 1:
            spans[-1] = (last[0], None if hi is None else max(hi, last[1]))
        else:
            spans.append((lo, hi))
    if spans == [(1, None)]:
        return "at every token count"
    texts = [_span(lo, hi) for lo, hi in spans]
    more = f" and {len(texts) - TOO_LONG} more ranges" if len(texts) > TOO_LONG else ""
    return f"at {', '.join(texts[:TOO_LONG])} tokens{more}"


def _span(lo: int, hi: int | None) -> str:
    return f"{lo} and more" if hi is None else str(lo) if lo == hi else f"{lo} to {hi}"
