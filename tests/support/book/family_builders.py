"""Parts of configurations that many families of models share."""

from typing import Any

Fields = dict[str, Any]
BF16 = {"weight_dtype": "bf16", "quant_type": "No", "activation_dtype": "bf16"}
FP8 = {"weight_dtype": "fp8", "quant_type": "per_1x128", "activation_dtype": "fp8"}
MXFP4 = {"weight_dtype": "fp4x2", "quant_type": "per_1x32", "activation_dtype": "fp4x2"}


def sizes(hidden: int, intermediate: int, experts: int, top_k: int, **more: Any) -> Fields:
    """Return the fields of a gated Silu layer without biases."""
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_experts": experts,
        "top_k": top_k,
        "activation": "Silu",
        "gate_up_order": "GGUU",
        "gated": True,
        "bias": False,
        **BF16,
        **more,
    }


def deepseek(model_type: str, **more: Any) -> Fields:
    return {
        "model_type": model_type,
        "hidden_act": "silu",
        "hidden_size": 512,
        "intermediate_size": 3072,
        "moe_intermediate_size": 384,
        "n_routed_experts": 24,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "num_hidden_layers": 8,
        "first_k_dense_replace": 1,
        "torch_dtype": "bfloat16",
        **more,
    }


def mixtral(model_type: str, **more: Any) -> Fields:
    return {
        "model_type": model_type,
        "hidden_act": "silu",
        "hidden_size": 512,
        "intermediate_size": 384,
        "num_local_experts": 16,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 8,
        "torch_dtype": "bfloat16",
        **more,
    }


def qwen(model_type: str, **more: Any) -> Fields:
    return {
        "model_type": model_type,
        "decoder_sparse_step": 1,
        "hidden_act": "silu",
        "hidden_size": 512,
        "intermediate_size": 1408,
        "mlp_only_layers": [],
        "moe_intermediate_size": 384,
        "num_experts": 32,
        "num_experts_per_tok": 4,
        "num_hidden_layers": 6,
        "torch_dtype": "bfloat16",
        **more,
    }


DEEPSEEK = sizes(512, 384, 24, 6)
MIX = sizes(512, 384, 16, 2)
QWEN = sizes(512, 384, 32, 4)
VISION = {"hidden_size": 1152, "hidden_act": "gelu_pytorch_tanh", "intermediate_size": 4304, "depth": 27}
