"""Benchmark of applying layouts on a CPU, against memcpy and AITER.

Lays out 16 experts of gpt-oss; memcpy moves the same bytes, AITER's own functions do the same work, all in one run.

``python bench/bench_apply.py [--experts 16] [--rounds 7]``. Every row is measured in turn, round by round, so that a
noisy machine hits all of them alike; the table shows medians and the ratio to memcpy of the same round.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from preshuffle.layouts import apply, apply_layout
from preshuffle.layouts.loader.input_checks import torch_shape
from preshuffle.registry import Decision, Query, Registry
from support.aiter.aiter_wheel import AiterFunctions, aiter_modules

ROWS, PADDED_ROWS, K, PADDED_K = 5760, 6144, 1440, 1536
GROUPS, PADDED_GROUPS = 90, 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    experts = options.experts
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {experts} experts, {options.rounds} rounds\n")
    weight = torch.randint(0, 256, (experts, PADDED_ROWS, PADDED_K), dtype=torch.uint8)
    scale = torch.randint(0, 256, (experts, PADDED_ROWS, PADDED_GROUPS), dtype=torch.uint8)
    out, scale_out = torch.empty_like(weight), torch.empty_like(scale)
    flat = scale.view(-1, PADDED_GROUPS)
    with aiter_modules() as aiter:
        contest(
            "w13 weights, padded, one tensor",
            weight.numel(),
            options.rounds,
            {
                "memcpy": lambda: out.copy_(weight),
                "apply_layout sep16, out=": lambda: apply_layout(weight, "sep16", out=out),
                "apply_layout sep16": lambda: apply_layout(weight, "sep16"),
                "AITER shuffle_weight": lambda: aiter.shuffle_weight(weight),
                "expert by expert, AITER": lambda: by_expert(out, weight, aiter),
                "apply_layout gui16, out=": lambda: apply_layout(weight, "gui16", out=out),
                "AITER shuffle_weight_a16w4": lambda: aiter.shuffle_weight_a16w4(weight, 16, True),
            },
        )
        contest(
            "w13 scales, padded, one tensor",
            scale.numel(),
            options.rounds,
            {
                "memcpy": lambda: scale_out.copy_(scale),
                "apply_layout e8, out=": lambda: apply_layout(scale, "e8", out=scale_out),
                "AITER e8m0_shuffle": lambda: aiter.e8m0_shuffle(flat),
                "apply_layout e8_gui16, out=": lambda: apply_layout(scale, "e8_gui16", out=scale_out),
                "AITER shuffle_scale_a16w4": lambda: aiter.shuffle_scale_a16w4(flat, experts, True),
            },
        )
        for dtype in ("fp4x2", "bf16"):
            whole_layer(experts, dtype, options.rounds, aiter)
    overhead(options.rounds)
    linear(options.rounds)


def by_expert(out: torch.Tensor, weight: torch.Tensor, aiter: AiterFunctions) -> None:
    """Run AITER's function on one expert after the other, as engines do."""
    for expert in range(weight.shape[0]):
        out[expert].copy_(aiter.shuffle_weight(weight[expert]))


def small_layer(experts: int, sizes: int) -> tuple[dict[str, torch.Tensor], Decision]:
    """A gpt-oss layer of any size, from checkpoint rows."""
    query = Query(
        model="openai/gpt-oss-20b", arch="gfx950", activation_dtype="fp4x2",
        num_experts=experts, top_k=1, hidden_size=sizes, intermediate_size=sizes,
    )  # fmt: skip
    decision = Registry.default().resolve(query)
    plain = {
        role: torch.zeros(torch_shape(decided.logical_shape, decided), dtype=torch.uint8)
        for role, decided in decision.tensors.items()
    }
    return {role: tensor.bfloat16() if role.endswith("bias") else tensor for role, tensor in plain.items()}, decision


def overhead(rounds: int) -> None:
    """Measure Python's share per tensor on a layer of negligible size."""
    plain, decision = small_layer(1, 64)
    buffers = [{role: tensor.clone() for role, tensor in plain.items()} for _ in range(100 * rounds)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # else waiting for each other is most of it
    apply(dict(plain), decision)
    times = []
    for tensors in buffers:
        begin = time.thread_time()  # this thread's own: a busy machine does not count
        apply(tensors, decision)
        times.append((time.thread_time() - begin) / len(plain))
    torch.set_num_threads(threads)
    print(f"Python's part of apply: {1e6 * median(times):.0f} us per tensor\n")


def linear(rounds: int) -> None:
    """Time per expert and per byte as both grow."""
    print(f"  {'experts':>8} {'size':>6} {'ms':>9} {'ns per KB':>10}")
    for experts, sizes in ((8, 1024), (16, 1024), (32, 1024), (64, 1024), (8, 2048), (8, 4096)):
        plain, decision = small_layer(experts, sizes)
        nbytes = sum(tensor.nbytes for tensor in plain.values())
        times = []
        for _ in range(rounds):
            tensors = {role: tensor.clone() for role, tensor in plain.items()}
            begin = time.perf_counter()
            apply(tensors, decision)
            times.append(time.perf_counter() - begin)
        print(f"  {experts:8} {sizes:6} {1e3 * median(times):9.1f} {1e12 * median(times) / nbytes:10.0f}")


def whole_layer(experts: int, dtype: str, rounds: int, aiter: object) -> None:
    """Measure one layer from checkpoint rows to kernel-ready tensors.

    De-interleave, pad, lay out, cast; all six tensors.
    """
    query = Query(model="openai/gpt-oss-20b", arch="gfx950", activation_dtype=dtype, num_experts=experts)
    decision = Registry.default().resolve(query)
    plain = {
        "w13_weight": torch.randint(0, 256, (experts, ROWS, K), dtype=torch.uint8),
        "w2_weight": torch.randint(0, 256, (experts, K * 2, K), dtype=torch.uint8),
        "w13_weight_scale": torch.randint(0, 256, (experts, ROWS, GROUPS), dtype=torch.uint8),
        "w2_weight_scale": torch.randint(0, 256, (experts, K * 2, GROUPS), dtype=torch.uint8),
        "w13_bias": torch.randn(experts, ROWS).to(torch.bfloat16),
        "w2_bias": torch.randn(experts, K * 2).to(torch.bfloat16),
    }
    nbytes = sum(tensor.numel() * tensor.element_size() for tensor in plain.values())
    contest(
        f"whole layer from checkpoint rows, {decision.recipe}",
        nbytes,
        rounds,
        {
            "memcpy": lambda: [tensor.clone() for tensor in plain.values()],
            "apply": lambda: apply(dict(plain), decision),
            "AITER, step by step": lambda: step_by_step(plain, dtype == "bf16", aiter),
        },
    )


def step_by_step(plain: dict[str, torch.Tensor], interleave: bool, aiter: object) -> dict[str, torch.Tensor]:
    """Convert a layer in separate passes, as engines do.

    One pass to pad, one to put the rows in order, then AITER's function, once for each tensor.
    """
    out: dict[str, torch.Tensor] = {}
    experts = plain["w13_weight"].shape[0]
    for role, tensor in plain.items():
        if role.endswith("_bias"):
            tensor = tensor.float().unsqueeze(-1)
        width = {"t": PADDED_K, "e": PADDED_GROUPS, "s": 1}[role[-1]]
        halves = 2 if role.startswith("w13") else 1
        rows = tensor.shape[1]
        padded = tensor.new_full((experts, rows // 2880 * 3072, width), 127 if role.endswith("_scale") else 0)
        padded[:, :rows, : tensor.shape[2]] = tensor
        if halves == 2:  # GUGU to GGUU: the padding behind the real rows splits evenly
            padded = padded.view(experts, -1, 2, width).permute(0, 2, 1, 3).contiguous().view(experts, -1, width)
        gate_up = interleave and halves == 2
        if role.endswith("_weight"):
            gui = aiter.shuffle_weight_a16w4  # type: ignore[attr-defined]
            out[role] = gui(padded, 16, gate_up) if interleave else aiter.shuffle_weight(padded)  # type: ignore[attr-defined]
        elif role.endswith("_scale"):
            flat = padded.view(-1, width)
            gui = aiter.shuffle_scale_a16w4  # type: ignore[attr-defined]
            out[role] = gui(flat, experts, gate_up) if interleave else aiter.e8m0_shuffle(flat)  # type: ignore[attr-defined]
        else:
            out[role] = padded
    return out


def contest(title: str, nbytes: int, rounds: int, runners: dict[str, Callable[[], object]]) -> None:
    times: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(rounds + 1):
        for name, run in runners.items():
            begin = time.perf_counter()
            run()
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - begin)
    print(f"{title} ({nbytes / 1e6:.0f} MB)")
    print(f"  {'':32} {'ms':>9} {'GB/s':>7} {'of memcpy':>10}")
    for name, found in times.items():
        ratio = median(base / own for base, own in zip(times["memcpy"], found, strict=True))
        middle = median(found)
        print(f"  {name:32} {middle * 1e3:9.1f} {2 * nbytes / middle / 1e9:7.1f} {ratio:10.2f}")
    print()


if __name__ == "__main__":
    main()
