"""Benchmark of checkpoints laid out ahead, on a synthetic DeepSeek-shaped one.

``python bench/bench_laid_out.py [--gb 10] [--tp 8] [--folder DIR] [--rounds 3]``. Each measurement is a process of its
own; every round measures all of them in turn, from a warm page cache, and loads a rank in several pairs, as these take
a tenth of a second. Reported are medians, ratios within a round or a pair, seconds of processor time (a busy machine
changes them less), and the largest resident set of each process, mapped pages counted: 0.26 GB of it are there before
any work begins.

``--flat`` lays out growing checkpoints, each file thrown away after its checksum, and reports the resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from preshuffle.layouts import Checkpoint, lay_out_checkpoint, open_laid_out, verify_laid_out
from preshuffle.layouts.laid_out import Manifest, RunEvent
from support.aiter.aiter_wheel import aiter_modules

HIDDEN, INTERMEDIATE, EXPERTS = 7168, 2048, 16
LAYER = EXPERTS * 3 * HIDDEN * INTERMEDIATE
PAIRS = 7
"""How often a round loads a rank by safetensors and by ``open_laid_out``, in turn."""
FIELDS: dict[str, Any] = {"arch": "gfx950"}
CONFIG: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "hidden_size": HIDDEN,
    "moe_intermediate_size": INTERMEDIATE,
    "n_routed_experts": EXPERTS,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 0,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
}


def write(folder: Path, layers: int) -> None:
    """Write a checkpoint of random fp8 codes.

    The same ones, shifted for every tensor.
    """
    folder.mkdir(parents=True)
    pool = torch.randint(0, 0x7F, (HIDDEN * INTERMEDIATE + 4096,), dtype=torch.uint8)
    weight_map: dict[str, str] = {}
    for layer in range(layers):
        tensors: dict[str, torch.Tensor] = {}
        for expert in range(EXPERTS):
            for number, (name, rows, k) in enumerate(
                (("gate", INTERMEDIATE, HIDDEN), ("up", INTERMEDIATE, HIDDEN), ("down", HIDDEN, INTERMEDIATE))
            ):
                first = (layer * 131 + expert * 17 + number * 5) % 4096
                codes = pool[first : first + rows * k].clone().view(rows, k)
                prefix = f"model.layers.{layer}.mlp.experts.{expert}.{name}_proj"
                tensors[f"{prefix}.weight"] = codes.view(torch.float8_e4m3fn)
                tensors[f"{prefix}.weight_scale_inv"] = torch.rand(rows // 128, k // 128)
        tensors[f"model.layers.{layer}.self_attn.o_proj.weight"] = torch.zeros(HIDDEN, 1024, dtype=torch.bfloat16)
        file = f"model-{layer + 1:05d}-of-{layers:05d}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))


@dataclass(frozen=True)
class Figures:
    """Measurement of one process.

    Attributes:
        seconds: by the clock.
        processor: seconds of processor time, the kernel's included.
        resident: gigabytes of the largest resident set.
    """

    seconds: float
    processor: float
    resident: float = 0.0


def timed(work: Callable[[], Any], who: int = resource.RUSAGE_SELF) -> Figures:
    before, begin = processor_time(who), time.perf_counter()
    work()
    seconds = time.perf_counter() - begin
    return Figures(seconds, processor_time(who) - before)


def processor_time(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def copy(folder: Path) -> Figures:
    """``cp`` of the same bytes, ended by fsync."""
    out = folder / "copied"

    def work() -> None:
        out.mkdir()
        files = sorted((folder / "checkpoint").glob("*"))
        subprocess.run(["cp", "--reflink=never", *files, out], check=True)
        subprocess.run(["sync", *out.glob("*"), out], check=True)

    found = timed(work, resource.RUSAGE_CHILDREN)
    shutil.rmtree(out)
    return found


def apply(folder: Path, tp: int) -> Figures:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    return timed(lambda: lay_out_checkpoint(folder / "checkpoint", out, tp=tp, **FIELDS))


def verify(folder: Path, tp: int) -> Figures:
    def work() -> None:
        assert verify_laid_out(folder / "out", against=folder / "checkpoint").verdict == "ok"

    return timed(work)


def safetensors_load(folder: Path, tp: int) -> Figures:
    """Read all tensors of rank 0 through safetensors' mapping.

    Into one buffer.
    """
    manifest = Manifest.read(folder / "out")
    buffer = torch.empty(max(one.nbytes for file in manifest.ranks for one in file.tensors), dtype=torch.uint8)

    def work() -> None:
        for file in manifest.rank(0, 0):
            with safe_open(folder / "out" / file.file, "pt") as opened:
                for one in file.tensors:
                    tensor = opened.get_tensor(one.name).view(-1).view(torch.uint8)
                    buffer[: one.nbytes].copy_(tensor)

    return timed(work)


def open_rank(folder: Path, tp: int) -> Figures:
    """The same through ``open_laid_out``, which checks keys and samples, and stamps."""
    manifest = Manifest.read(folder / "out")
    buffer = torch.empty(max(one.nbytes for file in manifest.ranks for one in file.tensors), dtype=torch.uint8)
    Checkpoint.open(folder / "checkpoint")  # the book is loaded: an engine has it

    def work() -> None:
        for _, tensor in open_laid_out(folder / "out", 0, tp=tp, **FIELDS):
            flat = tensor.view(-1).view(torch.uint8)
            buffer[: flat.numel()].copy_(flat)

    return timed(work)


def load_then_shuffle(folder: Path, tp: int) -> Figures:
    """Lay rank 0 of the checkpoint out with AITER's function."""
    checkpoint = Checkpoint.open(folder / "checkpoint")
    query = checkpoint.registry.query_from_hf_config(checkpoint.folder, layer=0, tp=tp, **FIELDS)

    with aiter_modules() as functions:

        def work() -> None:
            for layer in checkpoint.experts:
                tensors = checkpoint.rank(layer, query)
                for role in ("w13_weight", "w2_weight"):
                    tensors[role] = functions.shuffle_weight(tensors[role].view(torch.uint8))

        return timed(work)


def flat(folder: Path, tp: int) -> Figures:
    """Lay out; throw every file away after its checksum."""
    out = folder / "thrown"
    shutil.rmtree(out, ignore_errors=True)

    def throw(event: RunEvent) -> None:
        if event.event == "file" and event.file:
            os.truncate(out / event.file, 0)

    found = timed(lambda: lay_out_checkpoint(folder / "checkpoint", out, tp=tp, listener=throw, **FIELDS))
    shutil.rmtree(out)
    return found


PHASES: dict[str, Callable[[Path, int], Figures]] = {
    "apply": apply,
    "verify": verify,
    "safetensors": safetensors_load,
    "open": open_rank,
    "shuffle": load_then_shuffle,
    "flat": flat,
}


def in_process(name: str, folder: Path, tp: int) -> Figures:
    command = [sys.executable, __file__, "--phase", name, "--folder", str(folder), "--tp", str(tp)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return Figures(*json.loads(done.stdout.splitlines()[-1]))


def resident_set() -> float:
    """Return gigabytes of this process's largest resident set, mapped files counted."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM"))


def warm(folder: Path) -> None:
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as stream:
            while stream.read(1 << 24):
                pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=10)
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--phase", choices=PHASES)
    parser.add_argument("--flat", type=float, nargs="*", help="sizes in GB")
    args = parser.parse_args()
    if args.phase:
        found = PHASES[args.phase](args.folder, args.tp)
        print(json.dumps([found.seconds, found.processor, resident_set()]))
        return 0
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        for size in args.flat or ():
            folder = Path(name) / f"{size:g}"
            write(folder / "checkpoint", max(1, round(size * 1e9 / LAYER)))
            found = in_process("flat", folder, args.tp)
            times = f"{found.seconds:6.1f} s, processor {found.processor:6.1f} s"
            print(f"{size:5g} GB: {times}, resident {found.resident:.2f} GB", flush=True)
            shutil.rmtree(folder)
        if not args.flat:
            measure(Path(name), args)
    return 0


def measure(folder: Path, args: argparse.Namespace) -> None:
    layers = max(1, round(args.gb * 1e9 / LAYER))
    write(folder / "checkpoint", layers)
    size = sum(path.stat().st_size for path in (folder / "checkpoint").glob("*"))
    print(f"{size / 1e9:.2f} GB, {layers} layers of {EXPERTS} experts, tp {args.tp}", flush=True)
    rows: dict[str, list[Figures]] = {name: [] for name in ("cp", *PHASES) if name != "flat"}
    for _ in range(args.rounds):
        warm(folder / "checkpoint")
        rows["cp"].append(copy(folder))
        for name in ("apply", "verify", "shuffle"):
            warm(folder / "checkpoint")
            rows[name].append(in_process(name, folder, args.tp))
        warm(folder / "out")
        for name in ("safetensors", "open") * PAIRS:
            rows[name].append(in_process(name, folder, args.tp))
        last = {name: (round(found[-1].seconds, 3), round(found[-1].processor, 3)) for name, found in rows.items()}
        print(f"load {os.getloadavg()[0]:.1f}: {last}", flush=True)
    for name, found in rows.items():
        seconds, processor = median(one.seconds for one in found), median(one.processor for one in found)
        resident = max(one.resident for one in found)
        print(f"{name:12} {seconds:8.2f} s   processor {processor:6.2f} s   resident {resident:.2f} GB")
    for name, other, wanted in (("cp", "apply", 0.8), ("safetensors", "open", 0.9), ("shuffle", "open", 5.0)):
        pairs = list(zip(rows[name], rows[other][:: len(rows[other]) // len(rows[name])], strict=True))
        ratio = median(a.seconds / b.seconds for a, b in pairs)
        least = median(a.processor / b.processor for a, b in pairs)
        print(f"{name} / {other}: {ratio:.2f} (required {wanted}); of processor time {least:.2f}")


if __name__ == "__main__":
    sys.exit(main())
