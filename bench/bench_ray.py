"""Benchmark of checkpoints laid out on Ray: two workers against one.

``python bench/bench_ray.py [--gb 3] [--tp 8] [--rounds 3]``. The cluster is one node on this machine with two
processors; source and target lie in memory (``--folder``, /dev/shm). Processes are started before the first round.
Every round measures one worker, two workers, and as many threads of this process, in turn. Reported are medians, and
ratios within a round; and the processor time of all processes, the cluster's included, and of the busiest one. Where a
machine shares its processors among sessions, two workers of a session get no more time than one, so that on a busy
machine the clock says nothing: there the busiest process's part of the time tells whether the work is spread.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

import ray
import torch
from bench_laid_out import FIELDS, LAYER, timed, write

from preshuffle.layouts import lay_out_checkpoint
from preshuffle.layouts.laid_out import Executor, RayExecutor
from preshuffle.layouts.laid_out.runs.threads import ThreadExecutor

MAKERS: dict[str, Callable[[], Executor]] = {
    "1 worker": lambda: RayExecutor(workers=1),
    "2 workers": lambda: RayExecutor(workers=2),
    "1 thread": lambda: ThreadExecutor(1),
    "2 threads": lambda: ThreadExecutor(2),
}


class Figures(NamedTuple):
    """Measurement of one run.

    Attributes:
        seconds: by the clock.
        processor: seconds of processor time of all processes.
        busiest: those of the process that took most.
    """

    seconds: float
    processor: float
    busiest: float


def apply(folder: Path, checkpoint: str, executor: Executor, tp: int) -> Figures:
    """Lay out into an empty folder."""
    out = folder / "out"
    before = processor_times()
    found = timed(lambda: lay_out_checkpoint(folder / checkpoint, out, executor=executor, tp=tp, **FIELDS))
    times = [seconds - before.get(process, 0.0) for process, seconds in processor_times().items()]
    shutil.rmtree(out)
    return Figures(found.seconds, sum(times), max(times))


def processor_times() -> dict[int, float]:
    """Return seconds of processor time of this process and its descendants."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            process = int(path.parent.name)
            parents[process] = int(fields[1])
            seconds[process] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    own = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in own} - own:
        own |= more
    return {process: seconds[process] for process in own}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=3)
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    args = parser.parse_args()
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False,
             logging_level=logging.ERROR)  # fmt: skip
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, ray {ray.__version__}")
    rows: dict[str, list[Figures]] = {name: [] for name in MAKERS}
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        layers = max(2, round(args.gb * 1e9 / LAYER))
        write(folder / "checkpoint", layers)
        write(folder / "small", 2)
        apply(folder, "small", RayExecutor(workers=2), args.tp)
        for _ in range(args.rounds):
            for kind, maker in MAKERS.items():
                rows[kind].append(apply(folder, "checkpoint", maker(), args.tp))
            print(
                {kind: tuple(round(figure, 2) for figure in found[-1]) for kind, found in rows.items()},
                f"load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    for kind, found in rows.items():
        seconds, processor, busiest = (median(figures) for figures in zip(*found, strict=True))
        rate = layers * LAYER / seconds / 1e9
        print(f"{kind:10} {seconds:7.2f} s   {rate:.2f} GB/s   processor {processor:6.2f} s, busiest {busiest:6.2f} s")
    for one, two, wanted in (("1 worker", "2 workers", " (required 1.7)"), ("1 thread", "2 threads", "")):
        ratio = median(a.seconds / b.seconds for a, b in zip(rows[one], rows[two], strict=True))
        print(f"{one} / {two}: {ratio:.2f}{wanted}")
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
