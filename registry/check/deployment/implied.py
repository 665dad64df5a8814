"""Kernels that an engine runs by its rules and nobody reported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from preshuffle.registry.base.frozen import FrozenDict
from preshuffle.registry.check.deployment.backends import Backends
from preshuffle.registry.layer import MoELayer, why_unread
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve import EngineRuns, decisive_facts_of, engine_runs

_NOTHING = EngineRuns()


def implied_runs(layer: MoELayer, backends: Backends) -> EngineRuns:
    """Return what the engine runs; nothing where the observation shows it itself.

    Kernels, ``gate_mode`` and a scale label count before what an engine is expected to do. Laid-out bytes are AITER's,
    unless the engine runs other kernels that read them.
    """
    applied, engine = layer.applied, layer.query.engine
    if (
        engine is None
        or layer.problems
        or applied.kernels
        or applied.function in layer.book.entries["functions"]
        or applied.gate_mode
        or applied.swizzle_mx_scale
    ):
        return _NOTHING
    runs = _runs(layer)
    if layer.laid_out:
        return runs if runs.backend not in (None, "aiter") and _reads_w13(layer, runs) else _NOTHING
    named = _named(layer, backends) if runs.backend is None else None
    return replace(runs, named=named) if named else runs


def _runs(layer: MoELayer) -> EngineRuns:
    facts, env = layer.rule_facts, layer.requested.env
    unknown = frozenset({"tp", "ep"} - layer.stated)
    key = (unknown, *sorted(env.items()), *map(facts.get, decisive_facts_of(layer)))
    return layer.memo.get("engine runs", key, lambda: engine_runs(layer.book, facts, unknown, env.keys()))


def with_engine_switches(layer: MoELayer) -> MoELayer:
    """Return a layer with the switches that its engine sets itself.

    They count whatever the deployment set them to.
    """
    engine = layer.query.engine
    if engine is None or layer.problems or engine.name not in _setting_engines(layer):
        return layer
    runs = _runs(layer).runs
    names = set.intersection(*(set(run.recipe.sets) for run in runs)) if runs else set()
    assigned = {name: runs[0].recipe.env[name] for name in names}
    if assigned.items() <= layer.query.env.items():
        return layer
    return replace(layer, query=layer.query.altered(env=FrozenDict({**layer.query.env, **assigned})))


def _setting_engines(layer: MoELayer) -> frozenset[str]:
    """Return the engines of whose recipes some set switches."""
    return layer.memo.get("engines that set switches", (), lambda: frozenset(_setting(layer.book)))


def _setting(book: Book) -> Iterator[str]:
    for prepared in book.rule_index.prepared:
        if prepared.recipe is not None and prepared.recipe.sets and "engine" in prepared.conditions:
            yield from map(str, prepared.conditions["engine"].values)


def _reads_w13(layer: MoELayer, runs: EngineRuns) -> bool:
    w13 = layer.tensors.get("w13_weight")
    return w13 is not None and w13.layout is not None and w13.layout.id in runs.reads()["w13_weight"]


def _named(layer: MoELayer, backends: Backends) -> str | None:
    """Return the backend that a reported switch names; None where none does."""
    for name, value in layer.requested.env.items():
        flag = layer.book.flags.get(name)
        if flag is not None and flag.names_backend and why_unread(flag, layer.query) is None and backends.find(value):
            return value
    return None


def implied_note(layer: MoELayer, implied: EngineRuns) -> tuple[str, ...]:
    """Return the note on unreported kernels of an engine."""
    note = implied.note(layer.query.engine.name) if layer.query.engine else None
    return (note,) if note else ()
