"""Benchmark of ``identify`` on random cases out of files.

A case is a layout, a shape and a corruption; reported are misses, bytes read (whole pages) and time per kind.

``python bench/bench_identify.py [--cases 1000] [--seed 0] [--folder /dev/shm]``; exits with 1 if any case is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.tensors.spoilt_tensors import CORRUPTIONS, draw


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default=None, help="where the files are written")
    parser.add_argument("--most-bytes", type=int, default=1_000_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[tuple[int, float]]] = defaultdict(list)
    misses: list[str] = []
    untested = 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for number in range(options.cases):
            case = draw(options.seed + number, CORRUPTIONS[number % len(CORRUPTIONS)])
            case.write(Path(folder))
            begin = time.process_time()
            found = case.run_files(Path(folder), seed=number)
            seconds = time.process_time() - begin
            rows[case.corruption].append((found.bytes_read, seconds))
            untested += found.untested > 0
            problem = case.problem(found)
            if problem is None and found.bytes_read > options.most_bytes:
                problem = f"{case}: read {found.bytes_read} bytes"
            if problem:
                misses.append(f"#{options.seed + number} {problem}")
                print(misses[-1], flush=True)
    print(f"{'corruption':24} {'cases':>5} {'median read':>12} {'most read':>10} {'median s':>9} {'longest s':>9}")
    for kind, found_rows in sorted(rows.items()):
        sizes, times = zip(*found_rows, strict=True)
        print(
            f"{kind:24} {len(sizes):5} {median(sizes):12,.0f} {max(sizes):10,} {median(times):9.3f} {max(times):9.3f}"
        )
    sizes, times = zip(*(row for found_rows in rows.values() for row in found_rows), strict=True)
    print(f"{options.cases} cases, {len(misses)} missed, {untested} not tested to the end")
    print(f"bytes read: median {median(sizes):,.0f}, most {max(sizes):,}")
    print(f"seconds: median {median(times):.3f}, longest {max(times):.3f}, all {sum(times):.0f}")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
