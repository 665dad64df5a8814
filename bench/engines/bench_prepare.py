"""Measure what ``prepare`` adds to ``apply`` and to an engine's start.

Usage: ``python bench/engines/bench_prepare.py [--device cuda] [--experts 8] [--rounds 15]``.
On a GPU times are the host's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from preshuffle.layouts import apply, observe_here, observe_layer, prepare, registry_here
from preshuffle.layouts.loader import torch_shape
from preshuffle.registry import Decision, Observation, Query

LAYERS = 60
GIVEN = {"arch": "gfx950", "cu_num": 256, "aiter": "0.1.20", "activation_dtype": "fp4x2", "top_k": 4}
SIZES = {"hidden_size": 2880, "intermediate_size": 2880}


def plain_layer(decision: Decision, device: str) -> dict[str, torch.Tensor]:
    """Return zeros in buffers of the physical size."""
    dtypes = {"fp4x2": torch.uint8, "e8m0": torch.uint8, "fp32": torch.float32}
    return {
        role: torch.zeros(torch_shape(one.physical_shape, one), dtype=dtypes[one.dtype], device=device)
        for role, one in decision.tensors.items()
    }


def host_ms(run: Callable[[], Any], device: str) -> float:
    """Return the milliseconds that the host is busy with a call."""
    if device != "cpu":
        torch.cuda.synchronize()
    clock = time.thread_time if device == "cpu" else time.perf_counter
    begin = clock()
    run()
    taken = clock() - begin
    if device != "cpu":
        torch.cuda.synchronize()
    return taken * 1e3


def layer_figures(decision: Decision, experts: int, device: str, rounds: int) -> None:
    """Print the times of a copy, ``apply`` and ``prepare``."""
    rows: list[tuple[float, float, float]] = []
    fields: dict[str, Any] = {**GIVEN, **SIZES, "environment": dict(decision.env)}
    for _ in range(rounds + 1):
        layer = plain_layer(decision, device)
        copied = host_ms(lambda layer=layer: [tensor.clone() for tensor in layer.values()], device)  # type: ignore[misc]
        applied = host_ms(lambda layer=layer: apply(layer, decision), device)  # type: ignore[misc]
        layer = plain_layer(decision, device)
        prepared = host_ms(lambda layer=layer: prepare(layer, model="openai/gpt-oss-120b", **fields), device)  # type: ignore[misc]
        rows.append((copied, applied, prepared))
    copy, alone, whole = (median(column) for column in zip(*rows[1:], strict=True))
    added = median(prepared - applied for _, applied, prepared in rows[1:])
    print(f"{experts} experts on {device}: copy {copy:.2f} ms, apply {alone:.2f} ms, prepare {whole:.2f} ms")
    print(f"  prepare adds {added:.2f} ms to apply ({added / alone:.1%}); first layer: {rows[0][2]:.1f} ms")


def start_figures(decision: Decision, device: str) -> None:
    """Print what 60 layers add to an engine's start."""
    registry = registry_here()
    layer = plain_layer(decision, device)
    apply(layer, decision)

    def start() -> None:
        for _ in range(LAYERS):
            here = observe_here(registry=registry)
            here.pop("aiter_features", None)
            query = Query.parse({"model": "openai/gpt-oss-120b", **here, **GIVEN, **SIZES})
            registry.resolve(query)
            observation = Observation(query=query, applied=observe_layer(layer, query=query, registry=registry))
            registry.check(observation)
            observation.model_dump_json(exclude_none=True)

    print(
        f"{LAYERS} layers: {host_ms(start, device) / 1e3:.3f} s for resolve, observe, check and JSON; required: 0.5 s"
    )


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    sizes = {**SIZES, "num_experts": given.experts}
    decision = registry_here().resolve(Query.parse({"model": "openai/gpt-oss-120b", **GIVEN, **sizes}))
    layer_figures(decision, given.experts, given.device, given.rounds)
    start_figures(decision, given.device)


if __name__ == "__main__":
    main()
