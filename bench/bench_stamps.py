"""Benchmark of what stamps cost in one apply of a layer.

``python bench/bench_stamps.py [--experts 16] [--rounds 5]``. Every function of ``layouts.stamps`` that
``apply`` calls is timed inside the same run, so that a noisy machine changes both numbers alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import contextmanager
from inspect import unwrap
from statistics import median
from typing import Any

import torch

from preshuffle.layouts import apply, stamp_of
from preshuffle.layouts.loader.input_checks import torch_shape
from preshuffle.registry import Decision, Query, Registry

TIMED = ("put_stamps", "watch", "hand_over_stamps", "stamp_of", "overlapping_stamps", "find_mappings", "exclusive")


class Clock:
    """Time spent in some functions of a module."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that counts its own time."""

        def run(*arguments: Any, **keywords: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                self.seconds += time.perf_counter() - begin

        return run

    def timed_context(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a context manager whose entry and exit are counted."""

        @contextmanager
        def run(*arguments: Any) -> Any:
            begin = time.perf_counter()
            with function(*arguments):
                self.seconds += time.perf_counter() - begin
                yield
                begin = time.perf_counter()
            self.seconds += time.perf_counter() - begin

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    query = Query(model="openai/gpt-oss-20b", arch="gfx950", activation_dtype="fp4x2", num_experts=options.experts)
    decision = Registry.default().resolve(query)
    for name, padded in (("checkpoint shapes", False), ("buffers of the physical shape", True)):
        shares = [share_of(decision, padded) for _ in range(options.rounds + 1)][1:]
        total, stamps, look = (median(row[column] for row in shares) for column in range(3))
        print(
            f"{options.experts} experts, {name}: apply {1e3 * total:.1f} ms, stamps {1e3 * stamps:.2f} ms "
            f"({100 * median(row[1] / row[0] for row in shares):.2f} %), one stamp_of {1e6 * look:.0f} us"
        )


def share_of(decision: Decision, padded: bool) -> tuple[float, float, float]:
    """Return seconds of an apply, its stamps and one lookup."""
    tensors: dict[str, torch.Tensor] = {}
    for role, decided in decision.tensors.items():
        shape = torch_shape(decided.physical_shape if padded else decided.logical_shape, decided)
        tensors[role] = (torch.zeros if padded else torch.empty)(shape, dtype=torch.uint8)
        if role.endswith("bias"):
            tensors[role] = torch.zeros(shape, dtype=torch.bfloat16)
        else:
            tensors[role].random_(120, 130) if not padded else tensors[role][:, :16, :16].random_(120, 130)
    clock, module = Clock(), unwrap(apply).__globals__
    real = {name: module[name] for name in TIMED}
    try:
        for name, function in real.items():
            module[name] = (clock.timed_context if name == "exclusive" else clock.timed)(function)
        begin = time.perf_counter()
        apply(tensors, decision, pads="overwrite")
        total = time.perf_counter() - begin
    finally:
        module.update(real)
    begin = time.perf_counter()
    stamp_of(tensors["w13_weight"])
    return total, clock.seconds, time.perf_counter() - begin


if __name__ == "__main__":
    main()
