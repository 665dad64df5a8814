"""Benchmark of what reporting adds to an engine's start.

The engine has 60 layers. Run `python bench/engines/bench_report.py`: processor time on one core, the best of some
rounds; nothing is sent over a network.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import httpx

from preshuffle.api.client import Observation, Reporter, ServiceSettings, group_layers
from preshuffle.registry import Query, Registry, observation_of

ROUNDS = 5
LAYERS = 60
QUERY = Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2", tp=8, aiter="0.1.20")
RECEIPT = {"name": "b", "revision": 1, "changed": True, "verdict": "ok", "codes": [], "fixes": []}
RECEIPT |= {"created_at": "2026-01-01T00:00:00Z", "replaced_at": "2026-01-01T00:00:00Z"}


def best(measure: Callable[[], float]) -> float:
    """Return the best of some rounds."""
    return min(measure() for _ in range(ROUNDS))


def cpu_ms(act: Callable[[], object]) -> float:
    """Return the processor time of one call in all threads, in ms."""
    start = time.process_time_ns()
    act()
    return (time.process_time_ns() - start) / 1e6


def import_ms(code: str) -> float:
    """Return the CPU time of code in a fresh interpreter, in ms."""
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    return 1e3 * (after.children_user + after.children_system - before.children_user - before.children_system)


def answer(request: httpx.Request) -> httpx.Response:
    """Answer as the service does."""
    replica = int(request.url.params["replica"])
    return httpx.Response(200, json={**RECEIPT, "replica": replica})


def seen(registry: Registry, different: bool) -> dict[int, Observation]:
    """Return what 60 layers hold, alike or each otherwise."""
    observed = observation_of(registry.resolve(QUERY), QUERY)
    if not different:
        return dict.fromkeys(range(LAYERS), observed)
    applied = observed.applied
    return {
        layer: Observation(query=observed.query, applied=applied.model_copy(update={"swiglu_limit": layer + 1.0}))
        for layer in range(LAYERS)
    }


def call_us(reporter: Reporter, observed: dict[int, Observation]) -> float:
    """Return the median time of a call of ``report``, in us."""
    times = []
    for replica in range(200):
        start = time.perf_counter_ns()
        reporter.report(observed, replica=replica)
        times.append(time.perf_counter_ns() - start)
    reporter.flush(60)
    return statistics.median(times) / 1e3


def reporting(registry: Registry, different: bool) -> list[tuple[str, str]]:
    """Return the rows of layers that are alike, or each otherwise."""
    observed, kind = seen(registry, different), "each otherwise" if different else "alike"
    groups = group_layers(observed)
    size = len(json.dumps([group.model_dump(mode="json") for group in groups])) / 1024
    grouping = best(lambda: cpu_ms(lambda: group_layers(observed)))
    with tempfile.TemporaryDirectory() as folder:
        settings = ServiceSettings(url="http://service", deployment="bench", spool=folder, goodbye=False)
        with Reporter(settings=settings, transport=httpx.MockTransport(answer)) as reporter:
            delivering = best(lambda: cpu_ms(lambda: reporter.report(observed).result(60)))
            calling = call_us(reporter, observed)
    with Reporter(settings=ServiceSettings(), registry=registry) as embedded:
        judging = best(lambda: cpu_ms(lambda: embedded.report(observed).result()))
    return [
        (f"`group_layers`, {kind} ({len(groups)} groups, {size:.0f} KiB)", f"{grouping:.1f} ms"),
        (f"the call of `report`, {kind}", f"{calling:.1f} us"),
        (f"its work in the thread until the receipt, {kind}", f"{delivering:.1f} ms"),
        (f"judgement by the embedded book, {kind}", f"{judging:.1f} ms"),
    ]


def main() -> None:
    """Print the table."""
    registry = Registry.default()
    bare = best(lambda: import_ms("import httpx, pydantic.main"))
    both = best(lambda: import_ms("import preshuffle.api.client"))
    imported = ("`import preshuffle.api.client`, over httpx and pydantic", f"{both - bare:.0f} ms of {both:.0f}")
    print("| 60 layers | processor time |\n|---|---|")
    for name, figure in (imported, *reporting(registry, False), *reporting(registry, True)):
        print(f"| {name} | {figure} |")


if __name__ == "__main__":
    main()
