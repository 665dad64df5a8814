"""Stand-ins for AITER's `fused_moe`: they read laid-out bytes as its kernels do, by addresses, rightly or wrongly."""

from __future__ import annotations

from enum import Enum, StrEnum
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from preshuffle.layouts.mxfp4 import dequantize
from preshuffle.layouts.reference import fetch, swiglu

READS = {"separated": ("sep16", "e8"), "interleave": ("gui16", "e8_gui16")}


class GateMode(StrEnum):
    """As AITER spells it."""

    SEPARATED = "separated"
    INTERLEAVE = "interleave"


class ActivationType(Enum):
    Silu = 0
    Swiglu = 2


class QuantType(Enum):
    No = 0
    per_1x32 = 3


PACKAGE: Any = SimpleNamespace(ActivationType=ActivationType, QuantType=QuantType)


def matrix(weight: torch.Tensor, scale: torch.Tensor, layouts: tuple[str, str], expert: int) -> torch.Tensor:
    parts = [
        fetch(
            tensor,
            layout,
            (weight.shape[0], weight.shape[1], tensor.numel() // (weight.shape[0] * weight.shape[1])),
            expert,
        )
        for tensor, layout in zip((weight, scale), layouts, strict=True)
    ]
    return dequantize(*parts)


def forward(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    arguments: dict[str, Any],
    *,
    mode: str,
    swap: bool = False,
    limit: float | None = 7.0,
) -> torch.Tensor:
    """Run the layer from laid-out bytes; `swap` takes the up rows for the gate's."""
    assert arguments["w1"].is_shuffled
    assert arguments["w2"].is_shuffled
    assert arguments["activation"] is ActivationType.Swiglu
    assert arguments["quant_type"] is QuantType.per_1x32
    bias1, bias2 = arguments.get("bias1"), arguments.get("bias2")
    result = torch.zeros(x.shape[0], x.shape[1], dtype=torch.float64)
    for expert in range(arguments["w1"].shape[0]):
        token, slot = (ids == expert).nonzero(as_tuple=True)
        if not token.numel():
            continue
        w1 = matrix(arguments["w1"], arguments["w1_scale"], READS[mode], expert)
        rows = x[token].double() @ w1.T
        if bias1 is not None:
            assert bias1.dtype == torch.float32
            rows = rows + bias1[expert].double()
        gate, up = rows.chunk(2, dim=1)
        if swap:
            gate, up = up, gate
        out = (
            swiglu(gate, up, 1.702, limit)
            @ matrix(arguments["w2"], arguments["w2_scale"], READS["separated"], expert).T
        )
        if bias2 is not None:
            out = out + bias2[expert].double()
        result.index_add_(0, token, out * weights[token, slot].double().unsqueeze(1))
    return result.to(torch.bfloat16)


def new_fused_moe(
    hidden_states: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    topk_weight: torch.Tensor,
    topk_ids: torch.Tensor,
    expert_mask: torch.Tensor | None = None,
    activation: ActivationType = ActivationType.Silu,
    quant_type: QuantType = QuantType.No,
    w1_scale: torch.Tensor | None = None,
    w2_scale: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
    hidden_pad: int = 0,
    intermediate_pad: int = 0,
    bias1: torch.Tensor | None = None,
    bias2: torch.Tensor | None = None,
    gate_mode: GateMode = GateMode.SEPARATED,
    swiglu_limit: float = 7.0,
) -> torch.Tensor:
    """An AITER with `gate_mode` and `swiglu_limit`."""
    assert isinstance(gate_mode, GateMode)
    assert (hidden_pad, intermediate_pad) == (192, 192)
    return forward(hidden_states, topk_ids, topk_weight, locals(), mode=gate_mode.value, limit=swiglu_limit or None)


def old_fused_moe(
    hidden_states: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    topk_weight: torch.Tensor,
    topk_ids: torch.Tensor,
    activation: ActivationType = ActivationType.Silu,
    quant_type: QuantType = QuantType.No,
    w1_scale: torch.Tensor | None = None,
    w2_scale: torch.Tensor | None = None,
    bias1: torch.Tensor | None = None,
    bias2: torch.Tensor | None = None,
) -> torch.Tensor:
    """An AITER before `gate_mode`: SwiGLU always reads gate and up alternating."""
    return forward(hidden_states, topk_ids, topk_weight, locals(), mode="interleave")


def swapping(hidden_states: Tensor, topk_weight: Tensor, topk_ids: Tensor, **rest: Any) -> Tensor:
    return forward(hidden_states, topk_ids, topk_weight, rest, mode=rest["gate_mode"], swap=True)


def halving(hidden_states: Tensor, topk_weight: Tensor, topk_ids: Tensor, **rest: Any) -> Tensor:
    return forward(hidden_states, topk_ids, topk_weight, rest, mode=rest["gate_mode"]) * 0.5


def unbiased(hidden_states: Tensor, topk_weight: Tensor, topk_ids: Tensor, **rest: Any) -> Tensor:
    rest = {name: value for name, value in rest.items() if "bias" not in name}
    return forward(hidden_states, topk_ids, topk_weight, rest, mode=rest["gate_mode"])


def unlimited(hidden_states: Tensor, topk_weight: Tensor, topk_ids: Tensor, **rest: Any) -> Tensor:
    return forward(hidden_states, topk_ids, topk_weight, rest, mode=rest["gate_mode"], limit=None)


def deaf(hidden_states: Tensor, topk_weight: Tensor, topk_ids: Tensor, **rest: Any) -> Tensor:
    """A kernel that takes `gate_mode` and reads gate and up apart whatever it says."""
    return forward(hidden_states, topk_ids, topk_weight, rest, mode="separated")


def raising(hidden_states: Tensor, topk_weight: Tensor, topk_ids: Tensor, **rest: Any) -> Tensor:
    if hidden_states.shape[0] == 256:
        raise RuntimeError("Unsupported kernel config for moe heuristic dispatch")
    return forward(hidden_states, topk_ids, topk_weight, rest, mode=rest["gate_mode"])


def not_finite(hidden_states: torch.Tensor, **rest: Any) -> torch.Tensor:
    return torch.full_like(hidden_states, float("nan"))
