"""Cases of the comparison with engines: rows of `tests/tables/engines_*.yaml`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

TABLES = Path(__file__).parents[2] / "tables"


@dataclass(frozen=True)
class Case:
    """One layer in one engine on one GPU architecture.

    Attributes:
        form: how the checkpoint stores weights: a key of `checkpoint.FORMATS`.
        order: row order of w13 in the checkpoint.
        ep: expert-parallel ranks, on each of which `tp` ranks cut an expert.
        quantization: the section of that name in the model's configuration.
        options: what the engine is started with, and what its model says.
        env: environment of engine and query.
        flags: options of the engine's command line, as the query's environment has them.
        query: fields of the query beside sizes, engine and architecture.
        expect: what must come out (`figures.OUTCOMES`).
        differs: arguments of the call that differ, sorted.
        fault: whose fault a difference is, and what it is.
    """

    name: str
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


def read_cases(engine: str) -> list[Case]:
    """Return all cases of an engine."""
    table = _read(engine)
    layers = _read("layers")["layers"]
    cases = [case for row in table["runs"] for case in _cases_of(engine, row, layers[row["layer"]], table["env"])]
    return [replace(case, **_expected(case.name, table["differences"])) for case in cases]


def _expected(name: str, differences: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the first pattern that matches a case says of it."""
    found = next((row for row in differences if re.search(row["cases"], name)), {})
    return {key: tuple(value) if key == "differs" else value for key, value in found.items() if key != "cases"}


def _read(name: str) -> Any:
    return yaml.safe_load((TABLES / f"engines_{name}.yaml").read_text(encoding="utf-8"))


def _cases_of(engine: str, row: dict[str, Any], layer: dict[str, Any], env: dict[str, str]) -> Iterator[Case]:
    fields = {**layer, **row}
    for key in ("options", "env", "query", "flags"):
        fields[key] = {**layer.get(key, {}), **row.get(key, {})}
    fields["env"] = {**env, **fields["env"]}
    name, archs, sizes, note = (fields.pop(key, default) for key, default in DEFAULTS.items())
    fields["env"] = {key: str(value) for key, value in fields["env"].items()}
    for arch in archs:
        for tp in sizes:
            rank = min(fields.get("rank", 0), tp - 1)
            ranks = f"rank{rank}" if rank else "", f"ep{fields['ep']}" if "ep" in fields else ""
            title = " ".join(filter(None, (name, note, arch, f"tp{tp}", *ranks)))
            yield Case(**{**fields, "name": title, "engine": engine, "arch": arch, "tp": tp, "rank": rank})


DEFAULTS: dict[str, Any] = {"layer": "", "arch": ("gfx950", "gfx942"), "tp": (1, 2, 4, 8), "note": ""}
