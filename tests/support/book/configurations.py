"""config.json bodies of the families that engines run, as their makers publish them, and the models they are of."""

from typing import Any

BLOCK_FP8 = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}
MX = {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0", "symmetric": None}
QUARK_MXFP4 = {
    "quant_method": "quark",
    "global_quant_config": {
        "weight": {**MX, "is_dynamic": False},
        "input_tensors": {**MX, "is_dynamic": True},
        "output_tensors": None,
        "bias": None,
    },
    "layer_quant_config": {},
    "layer_type_quant_config": {},
    "exclude": ["lm_head", "re:.*self_attn.*", "model.layers.*.mlp.gate"],
    "export": {"weight_format": "real_quantized", "pack_method": "reorder"},
}
LINEAR = "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"
INT4 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", LINEAR],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "input_activations": None,
            "output_activations": None,
            "weights": {
                "type": "int",
                "num_bits": 4,
                "strategy": "group",
                "group_size": 32,
                "symmetric": True,
                "dynamic": False,
            },
        }
    },
}
CHANNEL_FP8 = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "ignore": ["lm_head", "re:.*mlp.gate$"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"type": "float", "num_bits": 8, "strategy": "channel", "symmetric": True, "dynamic": False},
            "input_activations": {"type": "float", "num_bits": 8, "strategy": "token", "dynamic": True},
        }
    },
}
MXFP4_PACKED = {
    "quant_method": "compressed-tensors",
    "format": "mxfp4-pack-quantized",
    "ignore": ["re:.*self_attn.*", "re:.*shared_experts.*", LINEAR, "re:.*lm_head.*"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "format": "mxfp4-pack-quantized",
            "input_activations": None,
            "weights": {"type": "float", "num_bits": 4, "strategy": "group", "group_size": 32, "scale_dtype": "uint8"},
        }
    },
}
DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1,
    "quantization_config": BLOCK_FP8,
    "torch_dtype": "bfloat16",
}
DEEPSEEK_V4 = {
    "architectures": ["DeepseekV4ForCausalLM"],
    "model_type": "deepseek_v4",
    "expert_dtype": "fp4",
    "hidden_size": 4096,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 43,
    "hidden_act": "silu",
    "swiglu_limit": 10.0,
    "torch_dtype": "bfloat16",
    "quantization_config": {**BLOCK_FP8, "scale_fmt": "ue8m0"},
}
KIMI_K2 = {
    **DEEPSEEK,
    "model_type": "kimi_k2",
    "first_k_dense_replace": 1,
    "n_routed_experts": 384,
    "n_group": 1,
    "quantization_config": INT4,
}
KIMI_K25 = {"model_type": "kimi_k25", "torch_dtype": "bfloat16", "text_config": KIMI_K2, "vision_config": {}}
KIMI_K3: dict[str, Any] = {
    "model_type": "kimi_k3",
    "dtype": "bfloat16",
    "text_config": {
        "model_type": "kimi_linear",
        "activation_situ_beta": 4.0,
        "activation_situ_linear_beta": 25.0,
        "first_k_dense_replace": 1,
        "hidden_act": "situ",
        "hidden_size": 7168,
        "intermediate_size": 33792,
        "moe_intermediate_size": 3072,
        "moe_layer_freq": 1,
        "num_experts": 896,
        "num_experts_per_token": 16,
        "num_hidden_layers": 93,
        "num_shared_experts": 2,
        "routed_expert_hidden_size": 3584,
        "quantization_config": MXFP4_PACKED,
    },
}
GLM_5 = {
    **DEEPSEEK,
    "model_type": "glm_moe_dsa",
    "hidden_size": 6144,
    "num_hidden_layers": 78,
    "mlp_layer_types": ["dense"] * 3 + ["sparse"] * 75,
}
GLM_47 = {
    **DEEPSEEK,
    "model_type": "glm4_moe",
    "hidden_size": 5120,
    "moe_intermediate_size": 1536,
    "n_routed_experts": 160,
    "num_hidden_layers": 92,
    "quantization_config": CHANNEL_FP8,
}
MINIMAX_M2 = {
    "model_type": "minimax_m2",
    "hidden_act": "silu",
    "hidden_size": 3072,
    "intermediate_size": 1536,
    "mlp_intermediate_size": 8192,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 62,
    "num_local_experts": 256,
    "shared_intermediate_size": 0,
    "quantization_config": {**BLOCK_FP8, "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"]},
}
MINIMAX_M3: dict[str, Any] = {
    "model_type": "minimax_m3_vl",
    "dtype": "bfloat16",
    "text_config": {
        "model_type": "minimax_m2",
        "dense_intermediate_size": 12288,
        "hidden_act": "swigluoai",
        "hidden_size": 6144,
        "intermediate_size": 3072,
        "moe_layer_freq": [0, 0, 0] + [1] * 57,
        "n_shared_experts": 1,
        "num_experts_per_tok": 4,
        "num_hidden_layers": 60,
        "num_local_experts": 128,
        "shared_intermediate_size": 3072,
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
    },
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [1, 32], "scale_fmt": "ue8m0"},
}
QWEN3 = {
    "model_type": "qwen3_moe",
    "decoder_sparse_step": 1,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "mlp_only_layers": [],
    "moe_intermediate_size": 1536,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 94,
    "quantization_config": {**BLOCK_FP8, "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.gate"]},
}
QWEN3_NEXT = {
    **QWEN3,
    "model_type": "qwen3_next",
    "hidden_size": 2048,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "num_hidden_layers": 48,
}
QWEN35 = {
    "model_type": "qwen3_5_moe",
    "text_config": {
        "model_type": "qwen3_5_moe_text",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": 4096,
        "moe_intermediate_size": 1024,
        "shared_expert_intermediate_size": 1024,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "num_hidden_layers": 60,
    },
}
QUARK_EXCLUDE = ["lm_head", "model.visual.pos_embed", "model.language_model.layers.*.mlp.shared_expert_gate"]
QWEN35_MXFP4 = {
    **QWEN35,
    "quantization_config": {**QUARK_MXFP4, "exclude": [*QUARK_EXCLUDE, "re:.*shared_expert.*"]},
}
MIXTRAL = {
    "model_type": "mixtral",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_local_experts": 8,
    "torch_dtype": "bfloat16",
}
LLAMA4 = {
    "model_type": "llama4",
    "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "llama4_text",
        "hidden_act": "silu",
        "hidden_size": 5120,
        "interleave_moe_layer_step": 2,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "num_experts_per_tok": 1,
        "num_hidden_layers": 48,
        "num_local_experts": 128,
    },
    "quantization_config": CHANNEL_FP8,
}
MIMO = {
    "model_type": "mimo_v2_flash",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 16384,
    "moe_intermediate_size": 2048,
    "moe_layer_freq": [0] + [1] * 47,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "quantization_config": BLOCK_FP8,
}
PUBLISHED: dict[str, tuple[dict[str, Any], str]] = {
    "deepseek-r1": (DEEPSEEK, "deepseek-ai/DeepSeek-R1-0528"),
    "deepseek-v3.2": ({**DEEPSEEK, "model_type": "deepseek_v32"}, "deepseek-ai/DeepSeek-V3.2"),
    "deepseek-r1-mxfp4": ({**DEEPSEEK, "quantization_config": QUARK_MXFP4}, "amd/DeepSeek-R1-0528-MXFP4-v2"),
    "deepseek-v4-flash": (DEEPSEEK_V4, "deepseek-ai/DeepSeek-V4-Flash"),
    "deepseek-v4-flash-fp8": ({**DEEPSEEK_V4, "expert_dtype": "fp8"}, "sgl-project/DeepSeek-V4-Flash-FP8"),
    "kimi-k2-thinking": (KIMI_K2, "moonshotai/Kimi-K2-Thinking"),
    "kimi-k2.5": (KIMI_K25, "moonshotai/Kimi-K2.5"),
    "kimi-k3": (KIMI_K3, "moonshotai/Kimi-K3"),
    "glm-5": (GLM_5, "zai-org/GLM-5-FP8"),
    "glm-4.7": (GLM_47, "zai-org/GLM-4.7-FP8"),
    "minimax-m2": (MINIMAX_M2, "MiniMaxAI/MiniMax-M2"),
    "minimax-m3": (MINIMAX_M3, "MiniMaxAI/MiniMax-M3-MXFP8"),
    "qwen3-235b": (QWEN3, "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"),
    "qwen3-next": (QWEN3_NEXT, "Qwen/Qwen3-Next-80B-A3B-Instruct-FP8"),
    "qwen3.5": (QWEN35, "Qwen/Qwen3.5-397B-A17B"),
    "qwen3.5-mxfp4": (QWEN35_MXFP4, "amd/Qwen3.5-397B-A17B-MXFP4"),
    "mixtral": (MIXTRAL, "mistralai/Mixtral-8x7B-Instruct-v0.1"),
    "llama4": (LLAMA4, "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8"),
    "mimo": (MIMO, "XiaomiMiMo/MiMo-V2-Flash"),
}
