"""SGLang's own conversion of one layer, run on a CPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from preshuffle.layouts.conform.engines.drivers.loading import load as load_experts
from preshuffle.layouts.conform.engines.drivers.random_experts import RandomExperts
from preshuffle.layouts.conform.engines.engine_cases import EngineCase

_NAMES: Final = {"weight": "weight", "scale": "weight_scale", "bias": "weight_bias", "input_scale": "input_scale"}
_PREFIX: Final = "model.layers.0.mlp.experts"
_TOKENS: Final = 4


def prepare(arch: str) -> None:
    """Give loggers the methods that SGLang's own logging gives them."""
    for name in ("info_once", "warning_once"):
        setattr(logging.Logger, name, logging.Logger.debug)


@contextmanager
def running(case: EngineCase) -> Iterator[None]:
    """Configure SGLang for a case."""
    from sglang.srt.runtime_context import get_context, get_parallel

    arguments = {"moe_runner_backend": case.options.get("moe_runner_backend", "auto"), "tp_size": 1, "device": "cpu"}
    ranks = {"moe_tp_size": case.tp, "moe_tp_rank": case.rank, "moe_ep_size": case.ep, "moe_ep_rank": case.ep_rank}
    ranks |= {"tp_size": case.tp * case.ep}
    ranks |= {"tp_rank": case.ep_rank * case.tp + case.rank, "attn_tp_size": case.tp * case.ep}
    ranks |= {"attn_tp_rank": ranks["tp_rank"]}
    with get_context().override_server_args(**arguments), get_parallel().override(**ranks), torch.device("cpu"):
        from sglang.srt.layers.moe.utils import initialize_moe_config

        initialize_moe_config()
        yield


def create(case: EngineCase) -> Any:
    """Return SGLang's layer, empty."""
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE

    options = case.options
    return FusedMoE(
        num_experts=case.experts,
        hidden_size=case.hidden,
        intermediate_size=case.intermediate,
        layer_id=0,
        top_k=case.top_k,
        params_dtype=torch.bfloat16,
        quant_config=_quantization(case),
        prefix=_PREFIX,
        activation=case.activation,
        gemm1_alpha=options.get("gemm1_alpha"),
        gemm1_clamp_limit=options.get("gemm1_clamp_limit"),
        swiglu_limit=case.swiglu_limit,
        use_weight_loader_fused=options.get("fused_loader", False),
        with_bias=case.bias,
        gate_up_interleaved=options.get("gate_up_interleaved", True),
    )


def _quantization(case: EngineCase) -> Any:
    from sglang.srt.layers.quantization import get_quantization_config

    if not case.quantization:
        return None
    method = case.options.get("method") or case.quantization["quant_method"]
    config = get_quantization_config(method).from_config({"packed_modules_mapping": {}, **case.quantization})
    for name, value in case.options.get("config", {}).items():
        setattr(config, name, value)
    return config


def load(layer: Any, experts: RandomExperts, case: EngineCase) -> None:
    """Load experts as SGLang's models do."""
    load_experts(layer, experts, case, _NAMES, _PREFIX)


def convert(layer: Any, case: EngineCase) -> None:
    """Lay the weights out."""
    layer.quant_method.process_weights_after_loading(layer)


def call(layer: Any, case: EngineCase) -> None:
    """Compute a few tokens."""
    from sglang.srt.layers.moe.token_dispatcher.standard import StandardDispatchOutput
    from sglang.srt.layers.moe.topk import StandardTopKOutput

    topk = StandardTopKOutput(
        topk_weights=torch.ones(_TOKENS, case.top_k),
        topk_ids=torch.zeros(_TOKENS, case.top_k, dtype=torch.int32),
        router_logits=torch.zeros(_TOKENS, case.experts),
    )
    hidden = torch.zeros(_TOKENS, case.hidden, dtype=torch.bfloat16)
    if case.ep > 1:  # as StandardDispatcher.dispatch makes it, on a GPU alone
        local = case.experts // case.ep
        mask = torch.arange(case.experts, dtype=torch.int32) // local == case.ep_rank
        layer.dispatcher.expert_mask_gpu = mask.to(torch.int32)
    fields = dict.fromkeys(StandardDispatchOutput._fields)
    layer.run_moe_core(StandardDispatchOutput(**{**fields, "hidden_states": hidden, "topk_output": topk}))
