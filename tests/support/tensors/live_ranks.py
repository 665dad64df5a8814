"""Engines' live layers of one tensor-parallel rank, with their plain weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from support.tensors.live_layers import atom_layer, named, sglang_layer, vllm_layer
from support.tensors.moe import decide, in_padded_buffers, plain_tensors

PER_RANK = {"hidden_size": 160, "intermediate_size_per_partition": 256, "top_k": 2}


def decided(engine: str | None = None, **fields: Any) -> Any:
    return decide("bf16", tp=2, intermediate_size=512, **({"engine": engine} if engine else {}), **fields)


def live(engine: str, *, padded: bool = True, tp_rank: int = 0) -> tuple[Any, dict[str, torch.Tensor], Any]:
    """An engine's layer of one rank with its plain weights, those weights, and what is decided for it."""
    decision = decided(f"{engine}")
    every = plain_tensors(decision, last_rank=tp_rank == 1)
    plain = {role: tensor for role, tensor in every.items() if not role.endswith("_input_scale")}
    decision = decision.model_copy(update={"tensors": {role: decision.tensors[role] for role in plain}})
    tensors = in_padded_buffers(plain, decision) if padded else {role: tensor.clone() for role, tensor in plain.items()}
    swiglu = SimpleNamespace(name="Swiglu", value=2)
    if engine == "vllm":
        config: dict[str, Any] = {
            "hidden_dim_unpadded": 160,
            "intermediate_size": 512,
            "experts_per_token": 2,
            "has_bias": True,
        }
        activation = named("MoEActivation", value="swigluoai")
        method = named("GptOssMxfp4MoEMethod")
        layer = vllm_layer(tensors, method, tp=2, tp_rank=tp_rank, activation=activation, swiglu_limit=7.0, **config)
    elif engine == "sglang":
        names = {"w13_bias": "w13_weight_bias", "w2_bias": "w2_weight_bias"}
        config = {**PER_RANK, "gemm1_clamp_limit": 7.0, "with_bias": True}
        layer = sglang_layer(tensors, named("Mxfp4MoEMethod"), names, tp=2, tp_rank=tp_rank, **config)
    else:
        attributes = {**PER_RANK, "activation": swiglu, "has_bias": True, "swiglu_limit": 7.0}
        layer = atom_layer(tensors, named("Mxfp4MoEMethod"), tp=2, tp_rank=tp_rank, **attributes)
    return layer, plain, decision
