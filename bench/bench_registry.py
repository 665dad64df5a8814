"""Benchmark of loading the book, resolving, and a process's answer.

Also whether the number of rules counts.

Run `python bench/bench_registry.py`: one core, the best of some rounds, of which each gives its median.
"""

import gc
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from typing import Any

import yaml

from preshuffle.registry import NoRecipeError, Query, Registry, Rule
from preshuffle.registry.loading.load import packaged_layer

ROUNDS = 5
QUERIES = 400
CROWDS = (100, 1_000, 10_000, 100_000)
PROCESS = ["-m", "preshuffle.api.cli", "resolve", "--model", "openai/gpt-oss-120b", "--arch", "gfx950", "--json"]
BARE = ["-c", "import pydantic.main"]
EMPTY = ["-c", "pass"]
IMPORT = ["-c", "import preshuffle.registry"]
_numbers = itertools.count()


def median_us(act: Callable[[Any], object], items: Iterable[Any]) -> float:
    """Return the median time of one call, in microseconds."""
    times = []
    for item in items:
        start = time.perf_counter_ns()
        act(item)
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1e3


def best(measure: Callable[[], float]) -> float:
    """Return the best of some rounds."""
    return min(measure() for _ in range(ROUNDS))


def seconds(act: Callable[[], object]) -> float:
    """Return the processor time that one call takes, in seconds."""
    start = time.process_time()
    act()
    return time.process_time() - start


def asked(registry: Registry) -> list[dict[str, Any]]:
    """Return a query for every model and engine with an answer."""
    models = [model.id for model in registry.book.models.values() if model.hidden_size]
    engines = (None, "atom", "vllm", "sglang")
    found = []
    for model, arch, engine, tp in itertools.product(models, ("gfx942", "gfx950"), engines, (1, 2, 4, 8)):
        fields = {"model": model, "arch": arch, "tp": tp} | ({"engine": engine} if engine else {})
        try:
            registry.resolve(Query.parse(fields), kernels=False)
        except (NoRecipeError, ValueError):
            continue
        found.append(fields)
    return found


def never_seen(fields: list[dict[str, Any]], new_sizes: bool) -> list[Query]:
    """Return queries that are in no cache.

    Each is another deployment, with or without sizes of its own.
    """
    chosen = itertools.islice(itertools.cycle(fields[:: max(1, len(fields) // QUERIES)]), QUERIES)
    numbers = [next(_numbers) for _ in range(QUERIES)]
    return [
        Query.parse(
            {**one, "deployment": f"d{number}"} | ({"num_experts": 64 * one["tp"] + number} if new_sizes else {})
        )
        for one, number in zip(chosen, numbers, strict=True)
    ]


def crowded(registry: Registry, number: int) -> Registry:
    """Return the registry with many more rules for unknown models."""
    more = {}
    for index in range(number):
        when = {"model": f"acme/m{index}", "arch": "gfx950", "activation_dtype": "fp4x2", "engine": None}
        rule = Rule(id=f"crowd.{index}", when=when, use="mxfp4.sep16", because="a crowd")
        more[rule.id] = rule
    book = registry.book
    rules = {**book.rules, **more}
    return Registry(replace(book, entries={**book.entries, "rules": rules}))


def deciding(registry: Registry, pool: list[dict[str, Any]], kernels: bool, new_sizes: bool) -> float:
    """Return the microseconds that deciding a query takes which nobody has asked."""

    def decide(query: Query) -> object:
        return registry.resolve(query, kernels=kernels)

    decide(Query.parse(pool[0]))
    gc.collect()
    gc.freeze()  # what is there stays: the collector need not look through 100,000 rules
    try:
        return best(lambda: median_us(decide, never_seen(pool, new_sizes)))
    finally:
        gc.unfreeze()


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Have Python find nothing compiled, and keep nothing unless told to."""
    before = sys.pycache_prefix, sys.dont_write_bytecode
    with tempfile.TemporaryDirectory() as cache:
        sys.pycache_prefix, sys.dont_write_bytecode = cache, True
        try:
            yield
        finally:
            sys.pycache_prefix, sys.dont_write_bytecode = before


def process(arguments: list[str]) -> float:
    """Return the seconds that a Python process takes, its modules compiled before."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        times = []
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment)
            times.append(time.perf_counter() - start)
    return min(times)


def first_load() -> Registry:
    """Load as the first time in a process."""
    packaged_layer.cache_clear()
    return Registry.load()


def main() -> None:
    texts = [
        item.read_text() for item in (files("preshuffle.registry") / "book").iterdir() if item.name.endswith("yaml")
    ]
    plain = best(lambda: seconds(lambda: [yaml.load(text, yaml.CSafeLoader) for text in texts]))
    with nothing_kept():
        load = best(lambda: seconds(first_load))
        sys.dont_write_bytecode = False
        registry = Registry.load()
        kept = best(lambda: seconds(first_load))
        repeated = best(lambda: seconds(Registry.load))
    entries = sum(map(len, registry.book.entries.values()))
    print(f"{entries} entries; torch imported: {'torch' in sys.modules}")
    print(f"load: {load * 1e3:.0f} ms; PyYAML's CSafeLoader alone on the same files: {plain * 1e3:.0f} ms")
    print(f"load, what YAML makes of the files kept from before: {kept * 1e3:.0f} ms")
    print(f"load again in the same process: {repeated * 1e3:.0f} ms")
    pool = asked(registry)
    for title, kernels, sizes in (
        ("never seen, bytes and call", False, False),
        ("never seen, nor its sizes, bytes and call", False, True),
        ("never seen, with kernels", True, False),
        ("never seen, nor its sizes, with kernels", True, True),
    ):
        print(f"resolve, {title}: {deciding(registry, pool, kernels, sizes):.1f} us")
    again = Query.parse(pool[0])
    print(f"resolve, again: {best(lambda: median_us(registry.resolve, [again] * 2000)):.2f} us")
    few = 0.0
    for number in CROWDS:
        took = deciding(crowded(registry, number), pool, False, False)
        few = few or took
        print(f"resolve, never seen, among {number:,} more rules: {took:.1f} us ({took / few:.2f})")
    first = (process(IMPORT) - process(EMPTY)) * 1e3
    print(f"`import preshuffle.registry` beyond Python's start: {first:.1f} ms (at most 10)")
    for what, arguments in (("nothing but `import pydantic.main`", BARE), ("`preshuffle resolve`", PROCESS)):
        print(f"{what} as a process: {process(arguments):.2f} s")


if __name__ == "__main__":
    main()
