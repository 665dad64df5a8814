"""Measure what comparing samples adds to a layer's conversion.

Whole experts of a model's first layer, rows of the others.

Usage: ``python bench/engines/bench_shadow.py [--device cuda] [--experts 64] [--rounds 5]``.
The conversion is ``apply`` into new tensors; reading the checkpoint is not counted. On a CPU the time of the thread
counts: set ``OMP_NUM_THREADS=1``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

import torch

from preshuffle.layouts import apply
from preshuffle.layouts.engines.plugins.sampled_experts import compare_samples, take_samples
from preshuffle.layouts.engines.plugins.sampled_rows import compare_rows, take_rows
from preshuffle.layouts.loader import torch_shape
from preshuffle.registry import Decision, Query, Registry

Result = TypeVar("Result")
LAYERS = 36
GIVEN = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "bf16", "top_k": 4}
DTYPES = {"fp4x2": torch.uint8, "e8m0": torch.uint8, "fp32": torch.float32}


@dataclass
class Samplings:
    """Rounds of one way of sampling.

    Milliseconds before, of, and after the conversion.
    """

    name: str
    rounds: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def milliseconds(self) -> float:
        """Median of what it adds."""
        return median(before + after for before, _, after in self.rounds)

    @property
    def share(self) -> float:
        """Median of what it adds, as a part of the conversion."""
        return median((before + after) / engine for before, engine, after in self.rounds)


def plain_layer(decision: Decision, device: str) -> dict[str, torch.Tensor]:
    """Return ones in the checkpoint's shapes."""
    return {
        role: torch.ones(torch_shape(one.logical_shape, one), dtype=DTYPES[one.dtype], device=device)
        for role, one in decision.tensors.items()
    }


def timed(run: Callable[[], Result], device: str) -> tuple[float, Result]:
    """Return the milliseconds of a call, and what it returned."""
    clock = time.thread_time if device == "cpu" else time.perf_counter
    begin = clock()
    result = run()
    if device != "cpu":
        torch.cuda.synchronize()
    return (clock() - begin) * 1e3, result


def main() -> None:
    """Print medians of one layer, and what a model's layers take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    decision = Registry.default().resolve(Query.parse({**GIVEN, "num_experts": options.experts}))
    first, others = Samplings("whole experts"), Samplings("rows")
    for number in range(options.rounds + 1):
        layer = plain_layer(decision, options.device)
        before, samples = timed(lambda plain=layer: take_samples(plain, decision), options.device)  # type: ignore[misc]
        taken, pieces = timed(lambda plain=layer: take_rows(plain, decision), options.device)  # type: ignore[misc]
        assert pieces is not None
        converting, _ = timed(lambda plain=layer: apply(plain, decision), options.device)  # type: ignore[misc]
        after, found = timed(lambda laid=layer, wanted=samples: compare_samples(laid, wanted), options.device)  # type: ignore[misc]
        compared, of_rows = timed(lambda laid=layer, wanted=pieces: compare_rows(laid, wanted), options.device)  # type: ignore[misc]
        assert {one.verdict for one in (*found, *of_rows)} == {"equal"}
        if number:
            first.rounds.append((before, converting, after))
            others.rounds.append((taken, converting, compared))
    print(f"{options.experts} experts on {options.device}: conversion {median(r[1] for r in first.rounds):.1f} ms")
    for sampling in (first, others):
        print(f"  {sampling.name}: {sampling.milliseconds:.2f} ms, {sampling.share:.2%} of the conversion")
    share = (first.share + (LAYERS - 1) * others.share) / LAYERS
    print(f"  a model of {LAYERS} layers: {share:.2%}; required: 1 %")


if __name__ == "__main__":
    main()
