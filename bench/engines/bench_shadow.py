"""Measure what comparing sampled experts adds to a layer's conversion.

Usage: ``python bench/engines/bench_shadow.py [--device cuda] [--experts 64] [--rounds 5]``.
The conversion is ``apply`` into new tensors; reading the checkpoint is not counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import TypeVar

import torch

from preshuffle.layouts import apply
from preshuffle.layouts.engines.plugins.sampled_experts import compare_samples, take_samples
from preshuffle.layouts.loader import torch_shape
from preshuffle.registry import Decision, Query, Registry

Result = TypeVar("Result")
GIVEN = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "bf16", "top_k": 4}
DTYPES = {"fp4x2": torch.uint8, "e8m0": torch.uint8, "fp32": torch.float32}


def plain_layer(decision: Decision, device: str) -> dict[str, torch.Tensor]:
    """Return ones in the checkpoint's shapes."""
    return {
        role: torch.ones(torch_shape(one.logical_shape, one), dtype=DTYPES[one.dtype], device=device)
        for role, one in decision.tensors.items()
    }


def timed(run: Callable[[], Result], device: str) -> tuple[float, Result]:
    """Return the milliseconds of a call, and what it returned."""
    begin = time.perf_counter()
    result = run()
    if device != "cpu":
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3, result


def main() -> None:
    """Print medians of one layer, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    decision = Registry.default().resolve(Query.parse({**GIVEN, "num_experts": options.experts}))
    rows: list[tuple[float, float, float]] = []
    for _ in range(options.rounds + 1):
        layer = plain_layer(decision, options.device)
        sampling, samples = timed(lambda plain=layer: take_samples(plain, decision), options.device)  # type: ignore[misc]
        converting, _ = timed(lambda plain=layer: apply(plain, decision), options.device)  # type: ignore[misc]
        comparing, found = timed(lambda laid=layer, taken=samples: compare_samples(laid, taken), options.device)  # type: ignore[misc]
        assert {one.verdict for one in found} == {"equal"}
        rows.append((sampling, converting, comparing))
    sampling, converting, comparing = (median(column) for column in zip(*rows[1:], strict=True))
    added = median((before + after) / engine for before, engine, after in rows[1:])
    print(f"{options.experts} experts on {options.device}: conversion {converting:.1f} ms,")
    print(f"  samples {sampling:.1f} ms, comparison {comparing:.1f} ms: {added:.1%} of the conversion")


if __name__ == "__main__":
    main()
