"""Benchmark of a laid-out rank's way to a GPU, against pinned copies.

``python bench/gpu/bench_device_copy.py [--gb 2.9] [--tp 1] [--rounds 5] [--folder DIR]``: from a warm page cache, every
round measures all rows in turn; medians, and ratios within a round. ``pinned`` copies as many bytes from a pinned
host tensor that is there to new tensors of the same sizes: what the bus gives. ``plain`` does what ``open`` must do, as
it is plainly done: each tensor is read from its file into pinned memory, then copied. ``safetensors`` is
``safetensors.torch.load_file`` of the same files to the device, ``open`` is ``open_laid_out`` with its checks and
stamps, ``layers`` the same without the first opening.
``--tried MOST_THREADS=8,BUFFERS=3 …`` measures with other constants of ``device_copy``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench_laid_out import EXPERTS, FIELDS, LAYER, warm, write

from preshuffle.layouts import Checkpoint, lay_out_checkpoint, open_laid_out
from preshuffle.layouts.laid_out import Manifest, device_copy

DEVICE = "cuda"


def pinned(manifest: Manifest) -> Callable[[], None]:
    files = manifest.rank(0, 0)
    most = max(one.nbytes for file in files for one in file.tensors)
    host = torch.randint(0, 256, (most,), dtype=torch.uint8).pin_memory()

    def run() -> None:
        for file in files:
            kept = [torch.empty(one.nbytes, dtype=torch.uint8, device=DEVICE) for one in file.tensors]
            for tensor in kept:
                tensor.copy_(host[: tensor.numel()], non_blocking=True)
        torch.cuda.synchronize()

    return run


def plain(folder: Path, manifest: Manifest) -> Callable[[], None]:
    files = manifest.rank(0, 0)
    most = max(one.nbytes for file in files for one in file.tensors)
    host = torch.empty(most, dtype=torch.uint8).pin_memory()
    view = memoryview(host.numpy().data)

    def run() -> None:
        for file in files:
            with open(folder / file.file, "rb", buffering=0) as stream:
                for one in file.tensors:
                    stream.seek(one.begin)
                    count = 0
                    while count < one.nbytes:
                        count += stream.readinto(view[count : one.nbytes]) or 0
                    tensor = torch.empty(one.nbytes, dtype=torch.uint8, device=DEVICE)
                    tensor.copy_(host[: one.nbytes], non_blocking=True)
                    torch.cuda.synchronize()  # the memory is read into again

    return run


def loaded_by_safetensors(folder: Path, manifest: Manifest) -> Callable[[], None]:
    def run() -> None:
        for file in manifest.rank(0, 0):
            load_file(folder / file.file, device=DEVICE)
        torch.cuda.synchronize()

    return run


def opened(folder: Path, tp: int) -> Callable[[], None]:
    def run() -> None:
        for _ in open_laid_out(folder, 0, device=DEVICE, tp=tp, **FIELDS):
            pass

    return run


def layers(folder: Path, tp: int) -> Callable[[], None]:
    rank = open_laid_out(folder, 0, device=DEVICE, tp=tp, **FIELDS)

    def run() -> None:
        for _ in rank:
            pass

    return run


def measure(folder: Path, args: argparse.Namespace) -> None:
    write(folder / "checkpoint", max(1, round(args.gb * 1e9 / LAYER)))
    lay_out_checkpoint(folder / "checkpoint", folder / "out", tp=args.tp, **FIELDS)
    Checkpoint.open(folder / "checkpoint")  # the book is loaded: an engine has it
    manifest = Manifest.read(folder / "out")
    nbytes = sum(one.nbytes for file in manifest.rank(0, 0) for one in file.tensors)
    count = len(manifest.rank(0, 0))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {nbytes / 1e9:.2f} GB of {count} files")
    print(f"{EXPERTS} experts, tp {args.tp}", flush=True)
    warm(folder / "out")
    rows: dict[str, Callable[[], Any]] = {
        "pinned": pinned(manifest),
        "plain": plain(folder / "out", manifest),
        "safetensors": loaded_by_safetensors(folder / "out", manifest),
        "open": opened(folder / "out", args.tp),
        "layers": layers(folder / "out", args.tp),
    }
    for tried in args.tried or [""]:
        for setting in tried.split(",") if tried else ():
            name, value = setting.split("=")
            setattr(device_copy, f"_{name}", int(value))
        print(tried or "as it is")
        rows["open"], rows["layers"] = opened(folder / "out", args.tp), layers(folder / "out", args.tp)
        contest(nbytes, args.rounds, rows)


def contest(nbytes: int, rounds: int, rows: dict[str, Callable[[], Any]]) -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, run in rows.items():
            torch.cuda.synchronize()
            begin, processor = time.perf_counter(), time.process_time()
            run()
            torch.cuda.synchronize()
            if number:  # the first round makes buffers and memory
                found[name].append((time.perf_counter() - begin, time.process_time() - processor))
            elif name in ("open", "layers"):
                print(f"  {name}, the first time: {time.perf_counter() - begin:.3f} s")
    for name, times in found.items():
        seconds, processor = (median(part) for part in zip(*times, strict=True))
        ratio = median(base[0] / one[0] for base, one in zip(found["pinned"], times, strict=True))
        rate = nbytes / seconds / 1e9
        print(f"  {name:12} {seconds:7.3f} s {rate:6.1f} GB/s  {ratio:5.2f} of pinned  processor {processor:6.2f} s")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=2.9)
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--tried", nargs="*", help="constants of device_copy: MOST_THREADS=8,BLOCK=16777216")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        measure(Path(name), args)


if __name__ == "__main__":
    main()
