"""vLLM's own conversion of one layer, run on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final

import torch

from preshuffle.layouts.conform.engines.drivers.loading import load as load_experts
from preshuffle.layouts.conform.engines.drivers.random_experts import RandomExperts
from preshuffle.layouts.conform.engines.engine_cases import EngineCase
from preshuffle.layouts.conform.standins.anything import module_of

_NAMES: Final = {"weight": "weight", "scale": "weight_scale", "bias": "bias", "input_scale": "input_scale"}
_TOKENS: Final = 4


def prepare(arch: str) -> None:
    """Give vLLM what compiled modules give on a GPU of an architecture."""
    module_of(
        "amdsmi",
        AmdSmiException=RuntimeError,
        amdsmi_init=lambda: None,
        amdsmi_shut_down=lambda: None,
        amdsmi_get_processor_handles=lambda: [0],
        amdsmi_get_gpu_asic_info=lambda _: {"target_graphics_version": arch, "market_name": "AMD", "device_id": "0"},
    )
    import vllm._aiter_ops as ops
    from vllm.v1.worker.workspace import init_workspace_manager

    init_workspace_manager(torch.device("cpu"))
    torch.ops._C.static_scaled_fp8_quant = static_scaled_fp8_quant  # type: ignore[attr-defined]
    torch.ops.vllm.rocm_aiter_fused_moe = ops._rocm_aiter_fused_moe_impl  # type: ignore[attr-defined]


def static_scaled_fp8_quant(output: torch.Tensor, values: torch.Tensor, scale: torch.Tensor, *_: Any) -> None:
    """Quantize with one scale as vLLM's compiled kernel does.

    Values are multiplied by the scale's reciprocal, and clamped.
    """
    largest = torch.finfo(output.dtype).max
    output.copy_((values.float() * (1 / scale.float())).clamp(-largest, largest).to(output.dtype))


@contextmanager
def running(case: EngineCase) -> Iterator[None]:
    """Configure vLLM for a case."""
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
        yield


def create(case: EngineCase) -> Any:
    """Return vLLM's layer, empty."""
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
    manager = ExpertMapManager(
        *(8192, case.top_k, case.experts, 0, None, parallel, "linear", False), rocm_aiter_enabled=True
    )
    return RoutedExperts("model.layers.0.mlp.experts", torch.bfloat16, moe, _quantization(case), manager)


def _quantization(case: EngineCase) -> Any:
    from vllm.model_executor.layers.quantization import get_quantization_config

    if not case.quantization:
        return None
    method = case.options.get("method") or case.quantization["quant_method"]
    return get_quantization_config(method).from_config(dict(case.quantization))


def load(layer: Any, experts: RandomExperts, case: EngineCase) -> None:
    """Load experts as vLLM's models do."""
    load_experts(layer, experts, case, _NAMES, "experts")


def convert(layer: Any, case: EngineCase) -> None:
    """Lay the weights out."""
    layer.quant_method.process_weights_after_loading(layer)


def call(layer: Any, case: EngineCase) -> None:
    """Compute a few tokens."""
    hidden = torch.zeros(_TOKENS, layer.hidden_size, dtype=torch.bfloat16)
    weights = torch.ones(_TOKENS, case.top_k)
    ids = torch.zeros(_TOKENS, case.top_k, dtype=torch.int32)
    layer._ensure_moe_quant_config_init()
    layer.forward_modular(hidden, weights, ids)
