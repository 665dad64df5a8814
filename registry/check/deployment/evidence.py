"""One look at a deployment: its scene, one possible call, the runs that follow, and which entries of the book hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from preshuffle.registry.check.deployment.backends import Backends
from preshuffle.registry.check.deployment.kernel_runs import Run
from preshuffle.registry.check.deployment.observed_layer import Scene
from preshuffle.registry.check.deployment.possible_calls import World
from preshuffle.registry.entries import ContractEntry, Facts, KnownBadEntry
from preshuffle.registry.kernels import KernelTables
from preshuffle.registry.loading import Compiled

TOO_LONG = 4


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
