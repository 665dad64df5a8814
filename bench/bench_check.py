"""Benchmark of checks per second on one core.

The same deployments again (heartbeats), and deployments never seen before.

Run `python bench/bench_check.py [CONFIGS_FOLDER]`; with a folder AITER's tables are looked up too. Seconds are CPU
seconds of one core, so that other programs do not count; the garbage collector leaves out what the bench itself made.
"""

import gc
import random
import sys
import time
from collections.abc import Callable
from itertools import product

from preshuffle.registry import NoRecipeError, Observation, Query, QueryError, Registry, observation_of

ROUNDS = 5


def observations(registry: Registry) -> list[Observation]:
    """Return observations that follow the decisions for every model."""
    models = [model.id for model in registry.book.models.values() if model.hidden_size]
    found = []
    for model, tp, dtype, engine in product(models, (1, 2, 4, 8), ("bf16", "fp4x2"), (None, "atom", "vllm", "sglang")):
        fields = {"model": model, "arch": "gfx950", "tp": tp, "activation_dtype": dtype, "aiter": "0.1.20"}
        query = Query.parse(fields | ({"engine": engine} if engine else {}))
        try:
            found.append(observation_of(registry.resolve(query), query))
        except (NoRecipeError, QueryError):
            continue
    return found


def strangers(seen: list[Observation]) -> list[Observation]:
    """The same with sizes that no call has had before."""
    changed = []
    for index, observation in enumerate(seen * 3):
        raw = observation.model_dump(exclude_unset=True)
        raw["query"]["num_experts"] = 16 + index
        for tensor in raw["applied"]["tensors"].values():
            for shape in ("logical_shape", "physical_shape"):
                tensor[shape] = (16 + index, *tensor[shape][1:])
        changed.append(Observation.parse(raw))
    return changed


def rate(check: Callable[[Observation], object], seen: list[Observation], rounds: int) -> float:
    gc.collect()
    gc.freeze()
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for observation in seen:
            check(observation)
        best = min(best, time.process_time() - start)
    return len(seen) / best


def main() -> None:
    registry = Registry.load(kernel_tables=sys.argv[1:] or None)
    seen = observations(registry)
    random.Random(7).shuffle(seen)
    for observation in seen:
        registry.check(observation)
    print(f"{len(seen)} deployments again and again: {rate(registry.check, seen, ROUNDS):,.0f} checks/s on one core")
    new = strangers(seen)
    print(f"{len(new)} deployments never seen: {rate(registry.check, new, 1):,.0f} checks/s")


if __name__ == "__main__":
    main()
