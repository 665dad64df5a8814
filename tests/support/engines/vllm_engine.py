"""vLLM's own conversion of one layer, run on a CPU."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from support.engines.cases import Case
from support.engines.checkpoint import Checkpoint
from support.engines.loading import load
from support.engines.standins import install_standins, module_of

ABSENT = (
    *("transformers", "msgspec", "cloudpickle", "zmq", "cbor2", "blake3", "gguf", "cachetools", "psutil", "tqdm"),
    *("huggingface_hub", "PIL", "aiohttp", "requests", "tokenizers", "openai", "cpuinfo"),
    *("prometheus_client", "pybase64", "lark", "diskcache", "setproctitle", "ray", "depyf", "numba", "ninja", "flydsl"),
    *("opentelemetry", "partial_json_parser", "einops", "cv2", "torchvision", "torchaudio", "tiktoken"),
    *("vllm._C", "vllm._C_stable_libtorch", "vllm._rocm_C", "vllm._moe_C"),
)
"""Packages and compiled extensions that an import asks for; experts need none of them."""

REPLACED = (
    *("vllm.renderers", "vllm.entrypoints", "vllm.parser", "vllm.multimodal", "vllm.inputs", "vllm.tool_parsers"),
    *("vllm.reasoning", "vllm.transformers_utils", "vllm.distributed.kv_transfer", "vllm.tokenizers"),
)
"""Parts of vLLM without experts, which import much."""


layers: list[Any] = []
"""The layer that was converted last."""


def prepare(tree: Path, arch: str) -> None:
    """Make vLLM importable."""
    sys.path.insert(0, str(tree))
    module_of(
        "amdsmi",
        AmdSmiException=RuntimeError,
        amdsmi_init=lambda: None,
        amdsmi_shut_down=lambda: None,
        amdsmi_get_processor_handles=lambda: [0],
        amdsmi_get_gpu_asic_info=lambda _: {"target_graphics_version": arch, "market_name": "AMD", "device_id": "0"},
    )
    install_standins(ABSENT, REPLACED)
    import vllm._aiter_ops as ops
    from vllm.v1.worker.workspace import init_workspace_manager

    init_workspace_manager(torch.device("cpu"))
    torch.ops._C.static_scaled_fp8_quant = static_scaled_fp8_quant  # type: ignore[attr-defined]
    torch.ops.vllm.rocm_aiter_fused_moe = ops._rocm_aiter_fused_moe_impl  # type: ignore[attr-defined]


def static_scaled_fp8_quant(output: torch.Tensor, values: torch.Tensor, scale: torch.Tensor, *_: Any) -> None:
    """Quantize with one scale, as vLLM's compiled kernel of that name does: times the scale's reciprocal, clamped."""
    largest = torch.finfo(output.dtype).max
    output.copy_((values.float() * (1 / scale.float())).clamp(-largest, largest).to(output.dtype))


def run(case: Case, checkpoint: Checkpoint) -> None:
    """Create, load, convert and call a layer."""
    from vllm.config import VllmConfig, set_current_vllm_config

    config = VllmConfig()
    config.kernel_config.moe_backend = case.options.get("moe_backend", "auto")
    hf_config = SimpleNamespace(model_type=case.options.get("model_type", ""))
    config.model_config = SimpleNamespace(
        dtype=torch.bfloat16,
        hf_config=hf_config,
        hf_text_config=hf_config,
        enforce_eager=True,
        quantization_config=None,
    )
    with set_current_vllm_config(config):
        layer = _layer(case)
        load(layer, checkpoint, case, NAMES, "experts")
        layer.quant_method.process_weights_after_loading(layer)
        layers[:] = [layer]
        if case.options.get("call", True):
            _call(layer, case)


def _layer(case: Case) -> Any:
    import vllm.distributed.parallel_state as state
    from vllm.model_executor.layers.fused_moe.activation import MoEActivation
    from vllm.model_executor.layers.fused_moe.config import (
        FusedMoEConfig,
        FusedMoEParallelConfig,
        RoutingMethodType,
    )
    from vllm.model_executor.layers.fused_moe.expert_map_manager import ExpertMapManager
    from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts

    group = SimpleNamespace(world_size=case.tp, rank_in_group=case.rank)
    state._TP = group
    parallel = FusedMoEParallelConfig(
        *(case.tp, 1, 1, case.ep, case.rank, 0, 0, case.ep_rank, 1),
        use_ep=case.ep > 1,
        all2all_backend="",
        enable_eplb=False,
    )
    moe = FusedMoEConfig(
        num_experts=case.experts,
        experts_per_token=case.top_k,
        hidden_dim=case.hidden,
        intermediate_size=case.intermediate,
        num_local_experts=case.experts // case.ep,
        num_logical_experts=case.experts,
        activation=MoEActivation.from_str(case.activation),
        device="cpu",
        routing_method=RoutingMethodType.Default,
        moe_parallel_config=parallel,
        in_dtype=torch.bfloat16,
        moe_backend=case.options.get("moe_backend", "auto"),
        has_bias=case.bias,
        swiglu_limit=case.swiglu_limit,
        swiglu_alpha=case.options.get("swiglu_alpha"),
        swiglu_beta=case.options.get("swiglu_beta"),
        activation_situ_beta=case.options.get("situ_beta"),
        activation_situ_linear_beta=case.options.get("situ_linear_beta"),
    )
    manager = ExpertMapManager(8192, case.top_k, case.experts, 0, None, parallel, "linear", False)
    return RoutedExperts("model.layers.0.mlp.experts", torch.bfloat16, moe, _quantization(case), manager)


def _quantization(case: Case) -> Any:
    from vllm.model_executor.layers.quantization import get_quantization_config

    if not case.quantization:
        return None
    method = case.options.get("method") or case.quantization["quant_method"]
    return get_quantization_config(method).from_config(dict(case.quantization))


NAMES = {"weight": "weight", "scale": "weight_scale", "bias": "bias", "input_scale": "input_scale"}


def _call(layer: Any, case: Case) -> None:
    tokens = 4
    hidden = torch.zeros(tokens, layer.hidden_size, dtype=torch.bfloat16)
    weights = torch.ones(tokens, case.top_k)
    ids = torch.zeros(tokens, case.top_k, dtype=torch.int32)
    layer._ensure_moe_quant_config_init()
    layer.forward_modular(hidden, weights, ids)
