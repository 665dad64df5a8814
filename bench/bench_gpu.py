"""Benchmark of applying layouts on a GPU, against memcpy and AITER.

memcpy moves the same bytes, AITER's own functions do the same work, all in one run.

``python bench/bench_gpu.py [--experts 128] [--rounds 20]``: medians over rounds, every row in turn in each round, timed
by events over twenty calls in a row. ``of memcpy`` is the ratio of medians, ``extra MB`` the most memory held beside
source and result, ``host us`` what one call keeps the CPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from preshuffle.layouts import apply, apply_layout
from preshuffle.layouts.loader.single import layout_of
from preshuffle.layouts.moves.in_place import SCRATCH_BYTES, InPlace
from preshuffle.registry import Decision, PlainView, Query, Registry, plan_copy
from support.aiter.aiter_wheel import aiter_modules

DEVICE = "cuda"
REPEAT = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--without-aiter", action="store_true", help="measure no function of AITER")
    options = parser.parse_args()
    experts, rounds = options.experts, options.rounds
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {experts} experts of 6144 x 1536 bytes\n")
    with nullcontext() if options.without_aiter else aiter_modules() as aiter:
        weights(experts, rounds, aiter)
        scales(16 * experts, rounds, aiter)
        for dtype in ("fp4x2", "bf16"):
            whole_layer(experts, dtype, max(3, rounds // 4), aiter)


def weights(experts: int, rounds: int, aiter: Any) -> None:
    weight = torch.randint(0, 256, (experts, 6144, 1536), dtype=torch.uint8, device=DEVICE)
    half, out = weight.view(torch.bfloat16), torch.empty_like(weight)
    contest(
        "weights",
        weight.numel(),
        rounds,
        {
            "memcpy": lambda: out.copy_(weight),
            "sep16 into out": lambda: apply_layout(weight, "sep16", out=out),
            "sep16 into out, bf16": lambda: apply_layout(half, "sep16", out=out),
            "sep16 in place": in_place(weight, "sep16"),
            "gui16 into out": lambda: apply_layout(weight, "gui16", out=out),
            "gui16 into out, bf16": lambda: apply_layout(half, "gui16", out=out),
            "gui16 in place": in_place(weight, "gui16"),
            "AITER shuffle_weight": lambda: aiter.shuffle_weight(weight),
            "AITER shuffle_weight_a16w4": lambda: aiter.shuffle_weight_a16w4(weight, 16, True),
        },
        aiter,
    )


def scales(experts: int, rounds: int, aiter: Any) -> None:
    scale = torch.randint(0, 256, (experts, 6144, 96), dtype=torch.uint8, device=DEVICE)
    flat, out = scale.view(-1, 96), torch.empty_like(scale)
    contest(
        "e8m0 scales (16 times as many experts, so that there are as many bytes)",
        scale.numel(),
        rounds,
        {
            "memcpy": lambda: out.copy_(scale),
            "e8 into out": lambda: apply_layout(scale, "e8", out=out),
            "e8 in place": in_place(scale, "e8"),
            "e8_gui16 into out": lambda: apply_layout(scale, "e8_gui16", out=out),
            "e8_gui16 in place": in_place(scale, "e8_gui16"),
            "AITER e8m0_shuffle": lambda: aiter.e8m0_shuffle(flat),
            "AITER shuffle_scale_a16w4": lambda: aiter.shuffle_scale_a16w4(flat, experts, True),
        },
        aiter,
    )


def in_place(tensor: torch.Tensor, name: str) -> Callable[[], None]:
    """Measure ``apply`` on a tensor of the physical size.

    Its plans are cached there, too.
    """
    layout = layout_of(name)
    experts, rows, k = tensor.shape
    halves = 2 if layout.pattern.splits_gate_up else 1

    @lru_cache
    def plan(count: int) -> Any:
        view = PlainView(count, halves, rows // halves, k, rows * k, rows // halves * k, k)
        return plan_copy(layout.bind(count, rows, k), view)

    job = InPlace(plan, experts, rows * k)
    data = tensor.view(-1)

    def run() -> None:
        scratch = torch.empty(job.scratch_for(data, SCRATCH_BYTES), dtype=torch.uint8, device=DEVICE)
        job.lay_out(data, scratch, 0)

    return run


def whole_layer(experts: int, dtype: str, rounds: int, aiter: Any) -> None:
    """Measure one gpt-oss layer from checkpoint rows.

    Order, pad, lay out, cast; all six tensors.
    """
    from bench_apply import step_by_step

    query = Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype=dtype, num_experts=experts)
    decision = Registry.default().resolve(query)
    shapes = {"w13_weight": (5760, 1440), "w2_weight": (2880, 1440)}
    plain = {
        role: torch.randint(0, 256, (experts, *shape), dtype=torch.uint8, device=DEVICE)
        for role, shape in (*shapes.items(), *((f"{role}_scale", (rows, 90)) for role, (rows, _) in shapes.items()))
    }
    plain["w13_bias"] = torch.randn(experts, 5760, device=DEVICE).to(torch.bfloat16)
    plain["w2_bias"] = torch.randn(experts, 2880, device=DEVICE).to(torch.bfloat16)
    contest(
        f"whole layer from checkpoint rows, {decision.recipe}",
        sum(tensor.numel() * tensor.element_size() for tensor in plain.values()),
        rounds,
        {
            "memcpy": lambda: [tensor.clone() for tensor in plain.values()],
            "apply": lambda: applied(plain, decision),
            "AITER, step by step": lambda: step_by_step(plain, dtype == "bf16", aiter),
        },
        aiter,
    )


def applied(plain: dict[str, torch.Tensor], decision: Decision) -> dict[str, torch.Tensor]:
    tensors = dict(plain)
    apply(tensors, decision)
    return tensors


def contest(title: str, nbytes: int, rounds: int, runners: dict[str, Callable[[], Any]], aiter: Any) -> None:
    runners = {name: run for name, run in runners.items() if aiter is not None or not name.startswith("AITER")}
    times: dict[str, list[float]] = {name: [] for name in runners}
    host: dict[str, list[float]] = {name: [] for name in runners}
    extra: dict[str, float] = {}
    for name, run in runners.items():
        run()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        kept = run()
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated() - before
        extra[name] = (torch.cuda.max_memory_allocated() - before - held) / 1e6
        del kept
    for _ in range(rounds):
        for name, run in runners.items():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            begin.record()
            for _ in range(REPEAT):
                run()
            end.record()
            torch.cuda.synchronize()
            times[name].append(begin.elapsed_time(end) / REPEAT)
            start = time.perf_counter()
            run()
            host[name].append(1e6 * (time.perf_counter() - start))
    print(f"{title} ({nbytes / 1e6:.0f} MB)")
    print(f"  {'':28} {'ms':>8} {'GB/s':>7} {'of memcpy':>10} {'extra MB':>9} {'host us':>8}")
    base = median(times["memcpy"])
    for name, found in times.items():
        middle = median(found)
        rate = 2 * nbytes / middle / 1e6
        print(
            f"  {name:28} {middle:8.3f} {rate:7.0f} {base / middle:10.3f} {extra[name]:9.1f} {median(host[name]):8.0f}"
        )
    print(flush=True)


if __name__ == "__main__":
    main()
