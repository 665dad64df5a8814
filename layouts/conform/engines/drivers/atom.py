"""ATOM's own conversion of one layer, run on a CPU."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final

import torch

from preshuffle.layouts.conform.engines.drivers.random_experts import SHARDS, RandomExperts
from preshuffle.layouts.conform.engines.engine_cases import EngineCase
from preshuffle.layouts.conform.standins.aiter_modules import ActivationType
from preshuffle.layouts.conform.standins.anything import module_of

_NAMES: Final = {"weight": "weight", "scale": "weight_scale", "bias": "bias", "input_scale": "input_scale"}
_PARTS: Final = {
    "parallel_config": "ParallelConfig",
    "eplb_config": "EPLBConfig",
    "compilation_config": "CompilationConfig",
}
"""Parts of ATOM's configuration, by field; earlier releases lack some."""
_TOKENS: Final = 4
GROUP = SimpleNamespace(world_size=1, rank_in_group=0)
ALONE = SimpleNamespace(world_size=1, rank_in_group=0)


def prepare(arch: str) -> None:
    """Replace ATOM's process groups and its registered operator."""
    module_of(
        "aiter.dist.parallel_state",
        get_tp_group=lambda: GROUP,
        get_dp_group=lambda: ALONE,
        get_ep_group=lambda: ALONE,
        get_pp_group=lambda: ALONE,
        get_tensor_model_parallel_world_size=lambda: GROUP.world_size,
        get_tensor_model_parallel_rank=lambda: GROUP.rank_in_group,
        get_prefill_context_model_parallel_world_size=lambda: 1,
        get_prefill_context_model_parallel_rank=lambda: 0,
    )
    import atom.model_ops.moe as moe

    torch.ops.aiter.rocm_aiter_fused_moe = moe.rocm_aiter_fused_moe_impl  # type: ignore[attr-defined]
    torch.empty = _filled(torch.empty)


def _filled(empty: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return ``torch.empty`` for dtypes that torch cannot fill deterministically, too."""

    def allocate(*shape: Any, dtype: torch.dtype | None = None, **options: Any) -> torch.Tensor:
        if dtype is torch.float4_e2m1fn_x2:
            return empty(*shape, dtype=torch.uint8, **options).view(dtype)
        return empty(*shape, dtype=dtype, **options)

    return allocate


def _named(name: str) -> Any:
    """Return what ``module:attribute`` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


@contextmanager
def running(case: EngineCase) -> Iterator[None]:
    """Set ATOM's ranks for a case."""
    GROUP.world_size, GROUP.rank_in_group = case.tp * case.ep, case.ep_rank * case.tp + case.rank
    yield


def create(case: EngineCase) -> Any:
    """Return ATOM's layer, empty."""
    import atom.config as config
    from atom.model_ops.moe import FusedMoE

    hf_config = SimpleNamespace(torch_dtype=torch.bfloat16, n_shared_experts=0, **case.options.get("hf_config", {}))
    if case.quantization:
        hf_config.quantization_config = case.quantization
    quantization = _named(case.options.get("quantization", "atom.config:QuantizationConfig"))(hf_config)
    parts = {field: getattr(config, name)() for field, name in _PARTS.items() if hasattr(config, name)}
    config.set_current_atom_config(
        SimpleNamespace(
            **parts,
            torch_dtype=torch.bfloat16,
            quant_config=quantization,
            tensor_parallel_size=case.tp,
            enable_expert_parallel=case.ep > 1,
            enable_dp_attention=False,
            moe_ep_flatten_tp_across_dp=False,
            max_num_batched_tokens=64,
            moe_backend="auto",
            fake_eplb=False,
        )
    )
    options = {
        "num_experts": case.experts,
        "top_k": case.top_k,
        "hidden_size": case.hidden,
        "intermediate_size": case.intermediate,
        "quant_config": quantization,
        "prefix": case.options.get("prefix", "model.layers.0.mlp.experts"),
        "has_bias": case.bias,
        "activation": ActivationType[case.options.get("activation", "Silu")],
        "config": hf_config,
        "pad_align": case.options.get("pad_align"),
    }
    known = inspect.signature(FusedMoE).parameters  # earlier releases have no pad_align
    layer = FusedMoE(**{name: value for name, value in options.items() if name in known or value is not None})
    if case.swiglu_limit is not None:
        layer.swiglu_limit = case.swiglu_limit
    for name, value in case.options.get("quant_method", {}).items():
        setattr(layer.quant_method, name, value)  # as the model does after it has made its experts
    return layer


def load(layer: Any, experts: RandomExperts, case: EngineCase) -> None:
    """Load by the layer's own weight loader, projection by projection."""
    parameters = dict(layer.named_parameters())
    if case.order == "GUGU":
        _load_fused(parameters, experts)
        return
    for shard, kind in experts.tensors:
        parameter = parameters.get(f"{'w2' if shard == 'w2' else 'w13'}_{_NAMES[kind]}")
        if parameter is None:
            continue  # the engine drops keys of a checkpoint that no parameter has
        for expert in range(case.experts):
            loaded = experts.shard_of(expert, shard, kind)
            if case.options.get("flat_scales") and kind == "scale":
                loaded = loaded.squeeze(-1)
            full = f"{layer.prefix}.{expert}.{SHARDS[shard]}_proj.{_NAMES[kind]}"
            parameter.weight_loader(parameter, loaded, full, shard, expert)


def _load_fused(parameters: dict[str, Any], experts: RandomExperts) -> None:
    """Load all experts at once, uncut, gate and up in turn: the engine's loader cuts ranks."""
    for projection in ("w13", "w2"):
        for kind in ("weight", "scale", "bias"):
            parameter = parameters[f"{projection}_{_NAMES[kind]}"]
            parameter.weight_loader(parameter, experts.fused(projection, kind, 1, 0).clone())


def convert(layer: Any, case: EngineCase) -> None:
    """Lay the weights out, as model and layer do."""
    if model := case.options.get("model"):
        _named(model).process_weights_after_loading(SimpleNamespace(experts=layer))
    layer.process_weights_after_loading()
    layer.quant_method.process_weights_after_loading(layer)
    layer.quant_method.init_prepare_finalize(layer)


def call(layer: Any, case: EngineCase) -> None:
    """Compute a few tokens."""
    hidden = torch.zeros(
        _TOKENS, layer.hidden_size + getattr(layer.quant_method, "hidden_pad", 0), dtype=torch.bfloat16
    )
    answer = torch.ones(_TOKENS, case.top_k), torch.zeros(_TOKENS, case.top_k, dtype=torch.int32)
    type(layer).select_experts = staticmethod(lambda *_, **__: answer)  # routing has nothing to do with weights
    layer.forward_impl(hidden, torch.zeros(_TOKENS, case.experts))
