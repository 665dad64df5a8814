"""Small MoE layers for tests: queries, decisions, and tensors as a checkpoint would hold them."""

from __future__ import annotations

import torch

from preshuffle.layouts.loader.input_checks import torch_shape
from preshuffle.registry import Decision, Query, Registry
from preshuffle.registry.base.words import Role

ACTIVATIONS = ("fp4x2", "bf16")
# 5 groups of hidden and 15 of intermediate: nothing divides 256, and TP 8 leaves the last rank half of the others'
SMALL = {"hidden_size": 160, "intermediate_size": 480, "num_experts": 4, "top_k": 2}


def hf_config(layers: int = 1) -> dict[str, object]:
    """The ``config.json`` of a gpt-oss checkpoint of the small sizes."""
    return {
        "model_type": "gpt_oss",
        "hidden_size": SMALL["hidden_size"],
        "intermediate_size": SMALL["intermediate_size"],
        "num_local_experts": SMALL["num_experts"],
        "num_experts_per_tok": SMALL["top_k"],
        "num_hidden_layers": layers,
        "quantization_config": {"quant_method": "mxfp4"},
    }


def gpt_oss(activation_dtype: str, **fields: object) -> Query:
    """A gpt-oss query with small sizes unless others are given."""
    return Query.parse(
        {"model": "gpt-oss-20b", "arch": "gfx950", "activation_dtype": activation_dtype, **SMALL, **fields}
    )


def decide(activation_dtype: str, **fields: object) -> Decision:
    return Registry.default().resolve(gpt_oss(activation_dtype, **fields))


def plain_tensors(decision: Decision, *, seed: int = 0, last_rank: bool = False) -> dict[str, torch.Tensor]:
    """Random tensors in the shapes in which one rank reads them from a checkpoint."""
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for role, decided in decision.tensors.items():
        values = (decided.short_shape or decided.logical_shape) if last_rank else decided.logical_shape
        shape = torch_shape(values, decided)
        if role.endswith("_bias"):
            tensors[role] = torch.randn(shape, generator=random).to(torch.bfloat16)
        else:
            low, high = (120, 131) if role.endswith("_scale") else (0, 256)
            tensors[role] = torch.randint(low, high, shape, dtype=torch.uint8, generator=random)
    return tensors


def in_padded_buffers(plain: dict[str, torch.Tensor], decision: Decision) -> dict[str, torch.Tensor]:
    """The same tensors in buffers of the physical size, live rows first, as an engine allocates them."""
    padded: dict[str, torch.Tensor] = {}
    for role, decided in decision.tensors.items():
        live = plain[role]
        buffer = torch.zeros(torch_shape(decided.physical_shape, decided), dtype=live.dtype)
        buffer[tuple(slice(size) for size in live.shape)] = live
        padded[role] = buffer
    return padded


def roles(decision: Decision) -> list[Role]:
    return list(decision.tensors)
