"""Loading by a layer's own weight loader, in vLLM and SGLang."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from preshuffle.layouts.conform.engines.drivers.random_experts import SHARDS, RandomExperts
from preshuffle.layouts.conform.engines.engine_cases import EngineCase


def load(layer: Any, experts: RandomExperts, case: EngineCase, names: Mapping[str, str], prefix: str) -> None:
    """Load expert by expert; alternating rows at once.

    Args:
        layer: the engine's.
        experts: what is loaded.
        case: what is compared.
        names: the parameters' names behind ``w13_`` and ``w2_``, by kind of tensor.
        prefix: of an expert's name in the checkpoint.
    """
    parameters, names = dict(layer.named_parameters()), {**names, **case.options.get("names", {})}
    if case.order == "GUGU":
        _load_fused(parameters, experts, case, names)
        return
    for shard, kind in experts.tensors:
        stem = f"{'w2' if shard == 'w2' else 'w13'}_{names[kind]}"
        name = stem if stem in parameters else f"{stem}_inv"
        for expert in range(case.experts):
            loaded = experts.shard_of(expert, shard, kind)
            if case.options.get("typed_scales") and kind == "scale":
                loaded = loaded.view(torch.float8_e8m0fnu)
            full = f"{prefix}.{expert}.{SHARDS[shard]}_proj.{name.partition('_')[2]}"
            parameters[name].weight_loader(parameters[name], loaded, full, shard, expert)


def _load_fused(parameters: dict[str, Any], experts: RandomExperts, case: EngineCase, names: Mapping[str, str]) -> None:
    """Load all experts at once, as the engines' gpt-oss models do, which cut ranks themselves."""
    for projection in ("w13", "w2"):
        for kind in ("weight", "scale", "bias"):
            name = f"{projection}_{names[kind]}"
            local = case.experts // case.ep
            unsharded = experts.fused(projection, kind, case.tp, case.rank)
            loaded = unsharded[case.ep_rank * local : (case.ep_rank + 1) * local]
            parameters[name].weight_loader(parameters[name], loaded, weight_name=name, shard_id=None, expert_id=None)
