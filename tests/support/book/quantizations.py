"""Forms of quantization_config as their makers write them, and what each says of the experts."""

from typing import Any

MODEL: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "hidden_act": "silu",
    "hidden_size": 256,
    "moe_intermediate_size": 128,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 4,
    "torch_dtype": "bfloat16",
}
FP4 = {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"}
FP8 = {"dtype": "fp8_e4m3", "is_dynamic": False}


def quark(weight: Any, inputs: Any, **more: Any) -> dict[str, Any]:
    return {
        "quant_method": "quark",
        "global_quant_config": {"weight": weight, "input_tensors": inputs},
        "exclude": ["lm_head"],
        **more,
    }


def compressed(weights: dict[str, Any], inputs: Any, **more: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, "ignore": ["lm_head"], **more}


def floats(bits: int, strategy: str, **more: Any) -> dict[str, Any]:
    return {"type": "float", "num_bits": bits, "strategy": strategy, "dynamic": False, "symmetric": True, **more}


PLAIN = ("bf16", "No", "bf16")
BLOCK = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
CASES: list[tuple[str, Any, tuple[str, str, str]]] = [
    ("none", None, PLAIN),
    ("mxfp4", {"quant_method": "mxfp4"}, ("fp4x2", "per_1x32", "bf16")),
    ("fp8 block", BLOCK, ("fp8", "per_1x128", "fp8")),
    ("fp8 mx", {"quant_method": "fp8", "weight_block_size": [1, 32], "scale_fmt": "ue8m0"}, ("fp8", "per_1x32", "fp8")),
    ("mxfp8", {"quant_method": "mxfp8"}, ("fp8", "per_1x32", "fp8")),
    ("fp8 static", {"quant_method": "fp8", "activation_scheme": "static"}, ("fp8", "per_Tensor", "fp8")),
    ("fp8 dynamic", {"quant_method": "fp8", "activation_scheme": "dynamic"}, ("fp8", "per_Tensor", "fp8")),
    ("quark a4w4", quark(FP4, {**FP4, "is_dynamic": True}), ("fp4x2", "per_1x32", "fp4x2")),
    ("quark w4 alone", quark(FP4, None), ("fp4x2", "per_1x32", "bf16")),
    ("quark w4a8", quark(FP4, {**FP8, "qscheme": "per_tensor"}), ("fp4x2", "per_1x32", "fp8")),
    (
        "quark channel",
        quark({**FP8, "qscheme": "per_channel"}, {**FP8, "is_dynamic": True}),
        ("fp8", "per_Token", "fp8"),
    ),
    ("quark tensor", quark({**FP8, "qscheme": "per_tensor"}, FP8), ("fp8", "per_Tensor", "fp8")),
    (
        "quark block",
        quark({**FP8, "qscheme": "per_block", "block_size": [128, 128]}, None),
        ("fp8", "per_1x128", "fp8"),
    ),
    (
        "ct channel",
        compressed(floats(8, "channel"), {"strategy": "token", "dynamic": True}),
        ("fp8", "per_Token", "fp8"),
    ),
    ("ct tensor", compressed(floats(8, "tensor"), {"dynamic": False}), ("fp8", "per_Tensor", "fp8")),
    (
        "ct block",
        compressed(floats(8, "block", block_structure=[128, 128]), {"strategy": "group", "dynamic": True}),
        ("fp8", "per_1x128", "fp8"),
    ),
    (
        "ct block as text",
        compressed(floats(8, "block", block_structure="128x128"), {"strategy": "group", "dynamic": True}),
        ("fp8", "per_1x128", "fp8"),
    ),
    (
        "quark int4 by channel, after fp8 by tensor",
        quark([{**FP8, "qscheme": "per_tensor"}, {"dtype": "int4", "qscheme": "per_channel", "symmetric": True}], FP8),
        ("i4x2", "per_Token", "fp8"),
    ),
    (
        "modelopt",
        {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"]},
        ("fp8", "per_Tensor", "fp8"),
    ),
    ("modelopt mxfp8", {"quant_method": "modelopt", "quant_algo": "MXFP8"}, ("fp8", "per_1x32", "fp8")),
    ("modelopt_mxfp8", {"quant_method": "modelopt_mxfp8", "quant_algo": "MXFP8"}, ("fp8", "per_1x32", "fp8")),
    (
        "modelopt mixed",
        {
            "quant_method": "modelopt_mixed",
            "quant_algo": "MIXED_PRECISION",
            "quantized_layers": {"mlp.experts": {"quant_algo": "FP8_PB_WO", "group_size": 128}},
        },
        ("fp8", "per_1x128", "fp8"),
    ),
    ("ct mxfp8", compressed(floats(8, "group", group_size=32), None), ("fp8", "per_1x32", "fp8")),
    ("ct mxfp4", compressed(floats(4, "group", group_size=32), None), ("fp4x2", "per_1x32", "bf16")),
    (
        "ct a4w4",
        compressed(floats(4, "group", group_size=32), {"type": "float", "num_bits": 4}),
        ("fp4x2", "per_1x32", "fp4x2"),
    ),
    (
        "ct int4",
        compressed({"type": "int", "num_bits": 4, "strategy": "group", "group_size": 32}, None),
        ("i4x2", "per_1x32", "bf16"),
    ),
]
