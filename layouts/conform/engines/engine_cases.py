"""Small layers that an engine converts: rows of ``tables/*.yaml``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from preshuffle.layouts.conform.engines.engine_table import LAYERS, EngineTable, read_table

_DEFAULTS: Final[dict[str, Any]] = {"layer": "", "arch": ("gfx950", "gfx942"), "tp": (1, 2, 4, 8), "note": ""}


@dataclass(frozen=True)
class EngineCase:
    """One layer in one engine on one GPU architecture.

    Attributes:
        name: unique for the engine.
        layer: row of ``layers.yaml``.
        form: how the checkpoint stores weights: a key of ``random_experts.FORMATS``.
        order: row order of w13 in the checkpoint.
        ep: expert-parallel ranks, on each of which ``tp`` ranks cut an expert.
        static: whether activations have scales in the checkpoint.
        quantization: the section of that name in the model's configuration.
        options: what the engine is started with, and what its model sets.
        env: environment of engine and query.
        flags: options of the engine's command line, as the query's environment has them.
        query: fields of the query beside sizes, engine and architecture.
        expect: the outcome that is known of ``EngineTable.release``.
        differs: what differs then, sorted; an argument of the call, or a tensor's ``.shape`` or ``.is_shuffled``.
        fault: whose fault that is, and what it is; empty where nothing is known to differ.
    """

    name: str
    layer: str
    engine: str
    arch: str
    model: str
    form: str
    hidden: int
    intermediate: int
    experts: int = 2
    top_k: int = 1
    tp: int = 1
    rank: int = 0
    ep: int = 1
    ep_rank: int = 0
    activation: str = "silu"
    order: str = "GGUU"
    bias: bool = False
    static: bool = False
    swiglu_limit: float | None = None
    quantization: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)
    expect: str = "equal"
    differs: tuple[str, ...] = ()
    fault: str = ""


def engine_cases(table: EngineTable) -> tuple[EngineCase, ...]:
    """Return all cases of an engine, in the order of its table."""
    layers = read_table(LAYERS)["layers"]
    cases = (case for row in table.runs for case in _cases_of(table, row, layers[row["layer"]]))
    return tuple(replace(case, **_known(case.name, table)) for case in cases)


def _known(name: str, table: EngineTable) -> dict[str, Any]:
    """Return what the first pattern that matches a case's name says of it."""
    found = next((row for row in table.known if re.search(row["cases"], name)), {})
    return {key: tuple(value) if key == "differs" else value for key, value in found.items() if key != "cases"}


def _cases_of(table: EngineTable, row: dict[str, Any], layer: dict[str, Any]) -> Iterator[EngineCase]:
    fields = {**layer, **row}
    for key in ("options", "env", "query", "flags"):
        fields[key] = {**layer.get(key, {}), **row.get(key, {})}
    fields["env"] = {key: str(value) for key, value in {**table.env, **fields["env"]}.items()}
    layer_name, archs, sizes, note = (fields.pop(key, default) for key, default in _DEFAULTS.items())
    fields |= {"layer": layer_name, "engine": table.name}
    for arch in archs:
        for tp in sizes:
            rank = min(fields.get("rank", 0), tp - 1)
            ranks = f"rank{rank}" if rank else "", f"ep{fields['ep']}" if "ep" in fields else ""
            name = " ".join(filter(None, (layer_name, note, arch, f"tp{tp}", *ranks)))
            yield EngineCase(**{**fields, "name": name, "arch": arch, "tp": tp, "rank": rank})
