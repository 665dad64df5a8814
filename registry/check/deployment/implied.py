"""Kernels that an engine runs by its rules and nobody reported."""

from __future__ import annotations

from preshuffle.registry.layer import MoELayer
from preshuffle.registry.resolve import REQUIRED_OF, EngineRuns, engine_runs

_NOTHING = EngineRuns()


def implied_runs(layer: MoELayer) -> EngineRuns:
    """Return what the engine runs; nothing where the observation shows it itself.

    Kernels, ``gate_mode``, a scale label and laid-out bytes count before what an engine is expected to do.
    """
    applied, engine = layer.applied, layer.query.engine
    if (
        engine is None
        or layer.problems
        or applied.kernels
        or applied.gate_mode
        or applied.swizzle_mx_scale
        or layer.laid_out
    ):
        return _NOTHING
    facts = layer.rule_facts
    unknown = frozenset({"tp", "ep"} - layer.stated)
    reported = layer.query.env.keys()
    key = (unknown, *sorted(layer.query.env.items()), *map(facts.get, (*layer.book.rule_index.fields, *REQUIRED_OF)))
    return layer.memo.get("engine runs", key, lambda: engine_runs(layer.book, facts, unknown, reported))


def implied_note(layer: MoELayer, implied: EngineRuns) -> tuple[str, ...]:
    """Return the note on unreported kernels of an engine."""
    note = implied.note(layer.query.engine.name) if layer.query.engine else None
    return (note,) if note else ()
