"""Child process: `prepare` on an engine's live layers, beside what the engine makes of the same weights.

`python -m support.engines.adapter_worker ENGINE ARCH NAMES` prints one JSON line per case whose name NAMES matches.
"""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from preshuffle.layouts import prepare, query_of_layer
from preshuffle.layouts.conform.engines.drivers import comparison, recorded_aiter
from preshuffle.layouts.conform.engines.drivers.comparison import bytes_of, shuffled
from preshuffle.layouts.conform.engines.drivers.random_experts import RandomExperts
from preshuffle.layouts.conform.engines.engine_cases import EngineCase, engine_cases
from preshuffle.layouts.conform.engines.engine_table import EngineTable, engine_table
from preshuffle.layouts.conform.standins.engine_worker import query_of
from preshuffle.registry import PreshuffleError, Registry
from support.engines.prepared import prepared_driver
from support.engines.trees import RELEASES

Answer = dict[str, Any]


def live_layer(driver: Any, case: EngineCase) -> Any:
    """Create an engine's layer and load random experts by its own loaders."""
    sizes = case.form, case.experts, case.hidden, case.intermediate
    layer = driver.create(case)
    driver.load(layer, RandomExperts(*sizes, bias=case.bias, static=case.static), case)
    return layer


def compare(driver: Any, case: EngineCase, engine: str) -> Answer:
    """Read, decide and prepare one layer, and let the engine convert and call another."""
    config = SimpleNamespace(moe_runner_backend=case.options.get("moe_runner_backend", "auto"))
    fields: dict[str, Any] = {"arch": case.arch, "aiter": RELEASES["aiter"], "tokens": [16], "env": case.env}
    try:
        with driver.running(case):
            layer = live_layer(driver, case)
            found = query_of_layer(layer, engine=engine, model=case.model, config=config, **fields)
            wanted = Registry.default().resolve(query_of(case, engine, RELEASES["aiter"]))
            decided = Registry.default().resolve(found.query)
    except PreshuffleError as error:
        return {"name": case.name, "outcome": "refused", "why": str(error)[:300]}
    except Exception as error:
        return {"name": case.name, "outcome": "raises", "why": f"{type(error).__name__}: {str(error)[:200]}"}
    if decided.decision_digest != wanted.decision_digest:
        return {"name": case.name, "outcome": "other decision", "why": f"{decided.recipe}, not {wanted.recipe}"}
    rounded = [role for role, tensor in decided.tensors.items() if "requantize_max" in tensor.steps]
    answer: Answer = {"name": case.name, "outcome": "decided", "function": found.function}
    answer["rounded"] = [name for name, role in comparison.ARGUMENTS.items() if role in rounded and "scale" not in role]
    recorded_aiter.calls.clear()
    try:
        with driver.running(case):
            theirs = live_layer(driver, case)
            driver.convert(theirs, case)
            driver.call(theirs, case)
        (call,) = recorded_aiter.calls[-1:]
    except Exception as error:
        return {**answer, "why": f"not compared: {type(error).__name__}: {str(error)[:200]}"}
    try:
        allowed = [finding.code for finding in decided.findings]
        named: dict[str, Any] = {
            "engine": engine,
            "model": case.model,
            "config": config,
            "on_environment": "tell",
            "allow": allowed,
        }
        prepared = prepare(layer, environment={}, **named, **fields)
    except PreshuffleError as error:
        return {**answer, "outcome": "prepare refuses", "why": str(error)[:300]}
    ours = prepared.kwargs("aiter.fused_moe")
    return {**answer, "outcome": "prepared", "differs": sorted(differences(ours, call))}


def differences(ours: dict[str, Any], call: dict[str, Any]) -> list[str]:
    """Return the tensor arguments whose bytes or tags differ."""
    tensors = {name: value for name, value in ours.items() if isinstance(value, torch.Tensor)}
    differing = [name for name, value in tensors.items() if not same(value, call.get(name))]
    return differing + [name for name in ("bias1", "bias2") if (name in tensors) != (call.get(name) is not None)]


def same(ours: torch.Tensor, theirs: torch.Tensor | None) -> bool:
    """Return whether two tensors have the same bytes and tag."""
    return theirs is not None and torch.equal(bytes_of(ours), bytes_of(theirs)) and shuffled(ours) == shuffled(theirs)


def expert_parallel_cases(table: EngineTable) -> Iterator[EngineCase]:
    """Yield layers whose experts are shared by the ranks that cut them elsewhere: TP 2, 4 and 8 with EP.

    Of vLLM and ATOM expert parallelism takes all ranks, SGLang may also cut the experts of each of its groups.
    """
    cuts = (1, 2) if table.name == "sglang" else (1,)
    for case in engine_cases(table):
        if case.tp != 1 or case.ep != 1 or case.rank or case.env != table.env:
            continue
        for ep in (2, 4, 8):
            for tp in cuts:
                name = f"{case.name.replace('tp1', f'tp{tp}')} ep{ep} of {2 * ep} experts"
                yield replace(case, name=name, tp=tp, ep=ep, ep_rank=ep - 1, experts=2 * ep, top_k=2)


def main(name: str, arch: str, pattern: str) -> None:
    """Run all cases of one architecture in one environment."""
    warnings.simplefilter("ignore")
    table = engine_table(name)
    every = [*engine_cases(table), *expert_parallel_cases(table)]
    cases = [case for case in every if case.arch == arch and re.search(pattern, case.name)]
    os.environ.update(cases[0].env)
    driver = prepared_driver(table, arch)
    for case in cases:
        if case.env == cases[0].env:
            print(json.dumps(compare(driver, case, f"{name}@{table.release}")), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
