"""Modules shaped like the engines' live layers: class names, attributes and methods, without the engines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]


def loader(*_: Any, **__: Any) -> None:
    """Stand for an engine's own weight loader."""


def named(kind: str, /, *bases: type, **attributes: Any) -> Any:
    """Return an object of a class of that name."""
    made = type(kind, bases or (object,), {})()
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


def with_parameters(module: torch.nn.Module, tensors: Tensors, names: dict[str, str] | None = None) -> Any:
    """Register tensors as parameters that have weight loaders."""
    for role, tensor in tensors.items():
        parameter = torch.nn.Parameter(tensor, requires_grad=False)
        parameter.weight_loader = loader  # type: ignore[attr-defined]
        module.register_parameter((names or {}).get(role, role), parameter)
    return module


def vllm_layer(tensors: Tensors, method: Any, *, tp: int = 1, tp_rank: int = 0, ep: int = 1, **config: Any) -> Any:
    """Return a layer as vLLM 0.33.0 has it (``FusedMoEConfig``, ``RoutedExperts``)."""
    parallel = SimpleNamespace(tp_size=tp, tp_rank=tp_rank, ep_size=ep, ep_rank=0, dp_size=1)
    layer = named("RoutedExperts", torch.nn.Module)
    layer.moe_config = SimpleNamespace(
        **{"moe_parallel_config": parallel, "has_bias": False, "swiglu_limit": None, "moe_backend": "auto", **config}
    )
    layer.params_dtype = torch.bfloat16
    layer.apply_router_weight_on_input = False
    layer.expert_map_manager = SimpleNamespace(num_fused_shared_experts=0, expert_mask=None, expert_map=None)
    layer.quant_method = method
    return with_parameters(layer, tensors)


def sglang_layer(
    tensors: Tensors, method: Any, names: dict[str, str], *, tp: int = 1, tp_rank: int = 0, **config: Any
) -> Any:
    """Return a layer as SGLang 0.5.23 has it (``FusedMoE``, ``MoeRunnerConfig``)."""
    layer = named("FusedMoE", torch.nn.Module)
    layer.hidden_size_unpadded = config.pop("hidden_size")
    layer.with_bias = config.pop("with_bias", False)
    layer.moe_tp_size, layer.moe_tp_rank, layer.moe_ep_size, layer.moe_ep_rank = tp, tp_rank, 1, 0
    layer.moe_runner_config = SimpleNamespace(
        **{"activation": "silu", "is_gated": True, "apply_router_weight_on_input": False, **config}
    )
    layer.params_dtype = torch.bfloat16
    layer.quant_method = method
    return with_parameters(layer, tensors, names)


def atom_layer(tensors: Tensors, method: Any, *, tp: int = 1, tp_rank: int = 0, **attributes: Any) -> Any:
    """Return a layer as ATOM has it (``FusedMoE``)."""
    layer = named("FusedMoE", torch.nn.Module)
    layer.moe_parallel_config = SimpleNamespace(tp_size=tp, tp_rank=tp_rank, ep_size=1, ep_rank=0, dp_size=1)
    for name, value in {"num_fused_shared_experts": 0, "has_bias": False, **attributes}.items():
        setattr(layer, name, value)
    layer.quant_method = method
    return with_parameters(layer, tensors)
