"""ATOM's own conversion of one layer, run on a CPU."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from support.engines import aiter_standin
from support.engines.cases import Case
from support.engines.checkpoint import SHARDS, Checkpoint
from support.engines.standins import install_standins, module_of

ABSENT = (
    *("transformers", "zmq", "flydsl", "mori", "tqdm", "huggingface_hub", "triton", "msgpack", "cloudpickle", "PIL"),
    *("pandas", "safetensors", "msgspec", "psutil", "einops", "aiohttp", "requests", "fastapi", "xxhash", "tilelang"),
)
"""Packages that an import asks for; experts need none of them."""

REPLACED = (
    *("atom.plugin.sglang", "atom.model_engine", "atom.model_ops.attentions", "atom.model_ops.base_attention"),
    *("aiter.dist", "aiter.rotary_embedding", "aiter.mla", "aiter.jit.utils.ck_fallback"),
)
"""Parts of ATOM and AITER without experts, which import much."""

GROUP = SimpleNamespace(world_size=1, rank_in_group=0)
ALONE = SimpleNamespace(world_size=1, rank_in_group=0)


def prepare(tree: Path, arch: str) -> None:
    """Make ATOM importable."""
    sys.path.insert(0, str(tree))
    install_standins(ABSENT, REPLACED)
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
    """Return `torch.empty` for dtypes that torch cannot fill deterministically, too."""

    def allocate(*shape: Any, dtype: torch.dtype | None = None, **options: Any) -> torch.Tensor:
        if dtype is torch.float4_e2m1fn_x2:
            return empty(*shape, dtype=torch.uint8, **options).view(dtype)
        return empty(*shape, dtype=dtype, **options)

    return allocate


def run(case: Case, checkpoint: Checkpoint) -> None:
    """Create, load, convert and call a layer."""
    GROUP.world_size, GROUP.rank_in_group = case.tp * case.ep, case.ep_rank * case.tp + case.rank
    layer = _layer(case)
    _load(layer, checkpoint, case)
    if model := case.options.get("model"):
        _named(model).process_weights_after_loading(SimpleNamespace(experts=layer))
    layer.process_weights_after_loading()
    layer.quant_method.process_weights_after_loading(layer)
    layer.quant_method.init_prepare_finalize(layer)
    _call(layer, case)


def _named(name: str) -> Any:
    """Return what `module:attribute` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _layer(case: Case) -> Any:
    from atom.config import CompilationConfig, EPLBConfig, ParallelConfig, set_current_atom_config
    from atom.model_ops.moe import FusedMoE

    hf_config = SimpleNamespace(torch_dtype=torch.bfloat16, n_shared_experts=0, **case.options.get("hf_config", {}))
    if case.quantization:
        hf_config.quantization_config = case.quantization
    quantization = _named(case.options.get("quantization", "atom.config:QuantizationConfig"))(hf_config)
    set_current_atom_config(
        SimpleNamespace(
            torch_dtype=torch.bfloat16,
            quant_config=quantization,
            parallel_config=ParallelConfig(),
            eplb_config=EPLBConfig(),
            compilation_config=CompilationConfig(),
            tensor_parallel_size=case.tp,
            enable_expert_parallel=case.ep > 1,
            enable_dp_attention=False,
            moe_ep_flatten_tp_across_dp=False,
            max_num_batched_tokens=64,
            moe_backend="auto",
            fake_eplb=False,
        )
    )
    layer = FusedMoE(
        num_experts=case.experts,
        top_k=case.top_k,
        hidden_size=case.hidden,
        intermediate_size=case.intermediate,
        quant_config=quantization,
        prefix=case.options.get("prefix", "model.layers.0.mlp.experts"),
        has_bias=case.bias,
        activation=aiter_standin.ActivationType[case.options.get("activation", "Silu")],
        config=hf_config,
        pad_align=case.options.get("pad_align"),
    )
    if case.swiglu_limit is not None:
        layer.swiglu_limit = case.swiglu_limit
    for name, value in case.options.get("quant_method", {}).items():
        setattr(layer.quant_method, name, value)  # as the model does after it has made its experts
    return layer


NAMES = {"weight": "weight", "scale": "weight_scale", "bias": "bias", "input_scale": "input_scale"}


def _load(layer: Any, checkpoint: Checkpoint, case: Case) -> None:
    """Load by the layer's own weight loader, one projection of one expert at a time."""
    parameters = dict(layer.named_parameters())
    if case.order == "GUGU":
        _load_fused(parameters, checkpoint)
        return
    for shard, kind in checkpoint.tensors:
        parameter = parameters.get(f"{'w2' if shard == 'w2' else 'w13'}_{NAMES[kind]}")
        if parameter is None:
            continue  # the engine drops keys of a checkpoint that no parameter has
        for expert in range(case.experts):
            loaded = checkpoint.shard_of(expert, shard, kind)
            if case.options.get("flat_scales") and kind == "scale":
                loaded = loaded.squeeze(-1)
            full = f"{layer.prefix}.{expert}.{SHARDS[shard]}_proj.{NAMES[kind]}"
            parameter.weight_loader(parameter, loaded, full, shard, expert)


def _load_fused(parameters: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Load all experts at once, uncut, gate and up in turn: the engine's loader cuts ranks."""
    for projection in ("w13", "w2"):
        for kind in ("weight", "scale", "bias"):
            parameter = parameters[f"{projection}_{NAMES[kind]}"]
            parameter.weight_loader(parameter, checkpoint.fused(projection, kind, 1, 0).clone())


def _call(layer: Any, case: Case) -> None:
    tokens = 4
    hidden = torch.zeros(tokens, layer.hidden_size + getattr(layer.quant_method, "hidden_pad", 0), dtype=torch.bfloat16)
    answer = torch.ones(tokens, case.top_k), torch.zeros(tokens, case.top_k, dtype=torch.int32)
    type(layer).select_experts = staticmethod(lambda *_, **__: answer)  # routing has nothing to do with weights
    layer.forward_impl(hidden, torch.zeros(tokens, case.experts))
