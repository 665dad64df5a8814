"""Evidence for check rules: layer, call, kernel runs, book entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from preshuffle.registry.base.ranges import merge_ranges, range_text
from preshuffle.registry.check.deployment.backends import Backends
from preshuffle.registry.check.deployment.kernel_runs import KernelRun
from preshuffle.registry.entries import ContractEntry, Facts, KnownBadEntry
from preshuffle.registry.kernels import KernelTables
from preshuffle.registry.layer import MoELayer, PossibleCall
from preshuffle.registry.loading import Compiled
from preshuffle.registry.resolve import EngineRuns

_MOST_RANGES = 4


@dataclass(slots=True, eq=False)
class Evidence:
    """Everything that a check rule may use, under one assumed call.

    Attributes:
        layer: what was observed, filled in from the book.
        call: the assumed call; None where no call fits.
        runs: the kernels that ran, or will run under that call.
        backends: the book's backends.
        tables: kernel tables, where there are any.
        implied: what the engine runs by its rules, where no kernel was reported.
        pad_conventions: the book's conventions of engines on pads.
        contracts: broken contracts, with the runs that break them.
        known_problems: deny-list entries that hold, with their runs.
        cached_recipe: recipe and w13 layout that the deployment's cache was made by; None where they are not known.
    """

    layer: MoELayer
    call: PossibleCall | None
    runs: tuple[KernelRun, ...]
    backends: Backends
    tables: KernelTables | None
    implied: EngineRuns
    pad_conventions: tuple[Compiled, ...] = ()
    contracts: Sequence[tuple[ContractEntry, tuple[KernelRun, ...]]] = ()
    known_problems: Sequence[tuple[KnownBadEntry, tuple[KernelRun, ...]]] = ()
    cached_recipe: tuple[str, str] | None = None

    def readers(self) -> frozenset[str]:
        """Return the kinds of reader among the runs: ``aiter``, ``own``, ``unknown``."""
        return frozenset(run.reader for run in self.runs)


def matching(
    candidates: Sequence[Compiled], layer: MoELayer, runs: Sequence[KernelRun], facts: Sequence[Facts]
) -> list[Any]:
    """Return ``(entry, runs)`` for each entry that holds for any run.

    Args:
        candidates: entries whose conditions on the whole deployment hold.
        layer: the deployment.
        runs: its kernel runs.
        facts: the facts of each run.
    """
    found = []
    for compiled in candidates:
        hits = tuple(run for run, run_facts in zip(runs, facts, strict=True) if compiled.holds(run_facts, layer.facts))
        if hits:
            found.append((compiled.entry, hits))
    return found


def at(runs: Sequence[KernelRun]) -> str:
    """Return the text of the runs' token counts, neighbouring ranges merged."""
    if any(run.lo is None for run in runs):
        return "at every token count"
    ranges = merge_ranges((run.lo or 1, run.hi) for run in runs)
    if ranges == [(1, None)]:
        return "at every token count"
    texts = [f"{lo} and more" if hi is None else range_text(lo, hi, " to ") for lo, hi in ranges]
    more = f" and {len(texts) - _MOST_RANGES} more ranges" if len(texts) > _MOST_RANGES else ""
    return f"at {', '.join(texts[:_MOST_RANGES])} tokens{more}"
