"""SGLang's own conversion of one layer, run on a CPU."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import torch

from support.engines.cases import Case
from support.engines.checkpoint import Checkpoint
from support.engines.loading import load
from support.engines.standins import install_standins

ABSENT = (
    *("transformers", "zmq", "sgl_kernel", "xgrammar", "outlines", "llguidance", "PIL", "aiohttp", "requests", "tqdm"),
    *(
        "huggingface_hub",
        "IPython",
        "pybase64",
        "setproctitle",
        "compressed_tensors_absent",
        "openai_harmony",
        "partial_json_parser",
    ),
    *("sentencepiece", "tiktoken", "interegular", "dill", "openai", "anthropic", "soundfile", "decord", "timm"),
    *("torchao", "torchaudio", "torchvision", "mooncake", "sglang_kernel", "gguf", "blobfile", "av", "modelscope"),
    *("tvm_ffi", "flydsl", "einops", "numba", "cuda"),
)
REPLACED = (
    *(
        "sglang.srt.utils.hf_transformers_patches",
        "sglang.srt.sampling.custom_logit_processor",
        "sglang.srt.disaggregation",
        "sglang.lang",
    ),
    *("sglang.kernels.jit.utils.compile",),
)


layers: list[Any] = []
"""The layer that was converted last."""


def prepare(tree: Path, arch: str) -> None:
    """Make SGLang importable."""
    sys.path.insert(0, str(tree))
    install_standins(ABSENT, REPLACED)
    for name in ("info_once", "warning_once"):
        setattr(logging.Logger, name, logging.Logger.debug)


def run(case: Case, checkpoint: Checkpoint) -> None:
    """Create, load, convert and call a layer."""
    from sglang.srt.runtime_context import get_context, get_parallel

    arguments = {"moe_runner_backend": case.options.get("moe_runner_backend", "auto"), "tp_size": 1, "device": "cpu"}
    ranks = {"moe_tp_size": case.tp, "moe_tp_rank": case.rank, "moe_ep_size": case.ep, "moe_ep_rank": case.ep_rank}
    ranks |= {"tp_size": case.tp * case.ep}
    ranks |= {"tp_rank": case.ep_rank * case.tp + case.rank, "attn_tp_size": case.tp * case.ep}
    ranks |= {"attn_tp_rank": ranks["tp_rank"]}
    with get_context().override_server_args(**arguments), get_parallel().override(**ranks), torch.device("cpu"):
        from sglang.srt.layers.moe.utils import initialize_moe_config

        initialize_moe_config()
        layer = _layer(case)
        load(layer, checkpoint, case, NAMES, "model.layers.0.mlp.experts")
        layer.quant_method.process_weights_after_loading(layer)
        layers[:] = [layer]
        if case.options.get("call", True):
            _call(layer, case)


def _layer(case: Case) -> Any:
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
        prefix="model.layers.0.mlp.experts",
        activation=case.activation,
        gemm1_alpha=options.get("gemm1_alpha"),
        gemm1_clamp_limit=options.get("gemm1_clamp_limit"),
        swiglu_limit=case.swiglu_limit,
        use_weight_loader_fused=options.get("fused_loader", False),
        with_bias=case.bias,
        gate_up_interleaved=options.get("gate_up_interleaved", True),
    )


def _quantization(case: Case) -> Any:
    from sglang.srt.layers.quantization import get_quantization_config

    if not case.quantization:
        return None
    method = case.options.get("method") or case.quantization["quant_method"]
    config = get_quantization_config(method).from_config({"packed_modules_mapping": {}, **case.quantization})
    for name, value in case.options.get("config", {}).items():
        setattr(config, name, value)
    return config


NAMES = {"weight": "weight", "scale": "weight_scale", "bias": "weight_bias", "input_scale": "input_scale"}


def _call(layer: Any, case: Case) -> None:
    from sglang.srt.layers.moe.token_dispatcher.standard import StandardDispatchOutput
    from sglang.srt.layers.moe.topk import StandardTopKOutput

    tokens = 4
    topk = StandardTopKOutput(
        topk_weights=torch.ones(tokens, case.top_k),
        topk_ids=torch.zeros(tokens, case.top_k, dtype=torch.int32),
        router_logits=torch.zeros(tokens, case.experts),
    )
    hidden = torch.zeros(tokens, case.hidden, dtype=torch.bfloat16)
    fields = dict.fromkeys(StandardDispatchOutput._fields)
    layer.run_moe_core(StandardDispatchOutput(**{**fields, "hidden_states": hidden, "topk_output": topk}))
