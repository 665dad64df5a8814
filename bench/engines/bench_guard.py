"""Measure what a guarded call costs beside a bare one.

Usage: ``python bench/engines/bench_guard.py``; no GPU and no AITER is needed.
"""

from __future__ import annotations

import sys
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from preshuffle.layouts import apply, call_arguments, guard_calls
from preshuffle.registry import Query, Registry

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
ROUNDS, CALLS = 25, 4_000


def fused_moe(
    hidden_states: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    topk_weight: torch.Tensor,
    topk_ids: torch.Tensor,
    expert_mask: torch.Tensor | None = None,
    activation: Any = None,
    quant_type: Any = None,
    doweight_stage1: bool = False,
    w1_scale: torch.Tensor | None = None,
    w2_scale: torch.Tensor | None = None,
    bias1: torch.Tensor | None = None,
    bias2: torch.Tensor | None = None,
    hidden_pad: int = 0,
    intermediate_pad: int = 0,
    swiglu_limit: float | None = None,
    gate_mode: str = "separated",
) -> torch.Tensor:
    """Return the tokens: only the call is measured."""
    return hidden_states


def layer() -> dict[str, Any]:
    """Return the arguments of a small laid-out gpt-oss layer."""
    from support.tensors.moe import plain_tensors

    sizes = {"hidden_size": 160, "intermediate_size": 480, "num_experts": 4, "top_k": 2}
    fields = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2", **sizes}
    decision = Registry.default().resolve(Query.parse(fields))
    tensors = plain_tensors(decision)
    apply(tensors, decision)
    return call_arguments(tensors, decision)


def nanoseconds(call: Callable[[], Any]) -> float:
    """Return the CPU time of one call in a round of many."""
    return timeit.timeit(call, timer=time.thread_time, number=CALLS) / CALLS * 1e9


def main() -> None:
    """Print the figures, rounds in turns."""
    a = layer()
    tokens = torch.zeros(16, 256, dtype=torch.bfloat16), torch.zeros(16, 2), torch.zeros(16, 2, dtype=torch.int32)
    guarded = guard_calls(fused_moe, arch="gfx950", cu_num=256, aiter="0.1.20")

    def calls(function: Callable[..., Any]) -> tuple[Callable[[], Any], Callable[[], Any]]:
        def named() -> Any:  # as SGLang calls it
            return function(
                hidden_states=tokens[0], w1=a["w1"], w2=a["w2"], topk_weight=tokens[1], topk_ids=tokens[2],
                activation=a["activation"], quant_type=a["quant_type"], w1_scale=a["w1_scale"],
                w2_scale=a["w2_scale"], bias1=a["bias1"], bias2=a["bias2"], doweight_stage1=False,
                hidden_pad=a["hidden_pad"], intermediate_pad=a["intermediate_pad"], swiglu_limit=7.0,
                gate_mode="separated",
            )  # fmt: skip

        def mixed() -> Any:  # as ATOM's operator and vLLM's wrapper call it
            return function(
                tokens[0], a["w1"], a["w2"], tokens[1], tokens[2], None, a["activation"], a["quant_type"], False,
                a["w1_scale"], a["w2_scale"], swiglu_limit=7.0, gate_mode="separated",
            )  # fmt: skip

        return named, mixed

    bare, checked = calls(fused_moe), calls(guarded)
    for call in checked:
        call()
    for form, plain, guard in zip(("16 keywords", "11 positions, 2 keywords"), bare, checked, strict=True):
        rounds = [(nanoseconds(plain), nanoseconds(guard)) for _ in range(ROUNDS)]
        pairs = [after - before for before, after in rounds]
        least = min(after for _, after in rounds) - min(before for before, _ in rounds)
        bare_ns, guarded_ns = (median(column) for column in zip(*rounds, strict=True))
        print(f"{form}: bare {bare_ns:.0f} ns, guarded {guarded_ns:.0f} ns, added {median(pairs):.0f} ns")
        print(f"  quietest rounds: added {least:.0f} ns; required: 1,000 ns")


if __name__ == "__main__":
    main()
