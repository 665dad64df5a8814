"""Stand-ins for AITER's `fused_moe`: they read laid-out bytes as its kernels do, by addresses, rightly or wrongly."""

from __future__ import annotations

from enum import Enum, StrEnum
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from preshuffle.layouts.loader.result import AITER_TAG
from preshuffle.layouts.proof.reference import fetch_expert, swiglu
from preshuffle.layouts.tensors.mxfp4 import dequantize

READS = {"separated": ("sep16", "e8"), "interleave": ("gui16", "e8_gui16")}


class GateMode(StrEnum):
    """As AITER spells it."""

    SEPARATED = "separated"
    INTERLEAVE = "interleave"


class ActivationType(Enum):
    Silu = 0
    Gelu = 1
    Swiglu = 2


class QuantType(Enum):
    No = 0
    per_Tensor = 1
    per_Token = 2
    per_1x32 = 3
    per_1x128 = 4


PACKAGE: Any = SimpleNamespace(ActivationType=ActivationType, QuantType=QuantType)


def matrix(weight: torch.Tensor, scale: torch.Tensor, layouts: tuple[str, str], expert: int) -> torch.Tensor:
    parts = [
        fetch_expert(
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
    assert getattr(arguments["w1"], AITER_TAG)
    assert getattr(arguments["w2"], AITER_TAG)
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


_FLOATS = {torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e4m3fnuz}


def tiled(weight: torch.Tensor, scale: torch.Tensor | None, quant: QuantType, expert: int, halves: int) -> torch.Tensor:
    """One expert's matrix from (16, 16) tiles, its scale (of a tensor, of rows, of blocks of 128) as it came."""
    assert weight.dtype in _FLOATS
    rows, k = weight.shape[1:]
    shape = (weight.shape[0], rows, k * weight.element_size())
    values = fetch_expert(weight, "sep16", shape, expert).contiguous().view(weight.dtype).double()
    if scale is None:
        assert quant is QuantType.No
        return values
    assert scale.dtype == torch.float32
    mine = scale[expert].double()
    if quant is QuantType.per_Tensor:
        return values * mine
    if quant is QuantType.per_Token:
        return values * mine.view(-1, 1)
    assert quant is QuantType.per_1x128
    blocks: torch.Tensor = mine.unflatten(0, (halves, -1)).repeat_interleave(128, 1)[:, : rows // halves].flatten(0, 1)
    return values * blocks.repeat_interleave(128, 1)[:, :k]


def other_fused_moe(
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
    *,
    swap: bool = False,
) -> torch.Tensor:
    """An AITER of any version on fp8 and unquantized weights: their gate and up lie apart, and nothing is clamped."""
    assert getattr(w1, AITER_TAG)
    assert getattr(w2, AITER_TAG)
    bend = torch.nn.functional.gelu if activation is ActivationType.Gelu else torch.nn.functional.silu
    result = torch.zeros(hidden_states.shape, dtype=torch.float64)
    for expert in range(w1.shape[0]):
        token, slot = (topk_ids == expert).nonzero(as_tuple=True)
        if not token.numel():
            continue
        rows = hidden_states[token].double() @ tiled(w1, w1_scale, quant_type, expert, 2).T
        gate, up = rows.chunk(2, dim=1)
        gate, up = (up, gate) if swap else (gate, up)
        out = (bend(gate) * up) @ tiled(w2, w2_scale, quant_type, expert, 1).T
        result.index_add_(0, token, out * topk_weight[token, slot].double().unsqueeze(1))
    return result.to(torch.bfloat16)
