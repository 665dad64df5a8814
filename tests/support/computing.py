"""Bound the CPU time of a call, relative to what this machine computes just then."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
ROUNDS = 5
PLAIN_S = 0.04
"""CPU seconds of `reference` on the machine that the bounds were set on, two cores with nothing else running."""
TEXT = json.dumps(
    [{"name": f"model.layers.{n}.mlp.experts", "sizes": [n, n + 1.5], "dtype": None} for n in range(9_000)]
)


def reference() -> int:
    """Parse, index and join small values, as readers of books and bodies do; about `PLAIN_S` of CPU."""
    total = 0
    for _ in range(2):
        index: dict[str, int] = {}
        for value in json.loads(TEXT):
            for part in value["name"].split("."):
                index[part] = index.get(part, 0) + len(part)
            total += sum(len(str(size)) for size in value["sizes"])
        total += len("/".join(index))
    return total


def cpu_seconds(call: Callable[[], T]) -> tuple[T, float]:
    """Call, and measure the CPU seconds of this process alone.

    Without the garbage collector: it would go through the objects of all tests, which no user of a call has.
    """
    gc.disable()
    try:
        started = time.process_time()
        result = call()
        return result, time.process_time() - started
    finally:
        gc.enable()


def pace() -> float:
    """Return how many times longer than on the plain machine `reference` takes just now; at least 1."""
    return max(1.0, cpu_seconds(reference)[1] / PLAIN_S)


def computed_within(seconds: float, call: Callable[[], T], what: object = "") -> T:
    """Call at most `ROUNDS` times until it stays within `seconds` of CPU; the best round counts.

    `seconds` are those of a plain machine: where `reference`, measured beside the call, takes longer than there (slower
    cores, another process on the same core), the bound grows in proportion. It never shrinks.

    Raises:
        AssertionError: no round stayed within the bound.
    """
    for _ in range(ROUNDS):
        result, taken = cpu_seconds(call)
        if taken < seconds:
            return result
        slower = pace()
        if taken < seconds * slower:
            return result
    raise AssertionError(f"{what}: {taken:.2f} s of CPU, at a pace of {slower:.1f}; bound: {seconds} s")
