"""config.json bodies of further families: structure as published, small numbers changed, and what a query then says."""

from support.book.configurations import BLOCK_FP8, CHANNEL_FP8
from support.book.family_builders import (
    DEEPSEEK,
    FP8,
    MIX,
    MXFP4,
    QWEN,
    VISION,
    Fields,
    deepseek,
    mixtral,
    qwen,
    sizes,
)
from support.book.more_families import MORE_FAMILIES

FAMILIES: dict[str, tuple[Fields, Fields]] = {
    "deepseek_v2": (deepseek("deepseek_v2", topk_method="greedy", moe_layer_freq=1), DEEPSEEK),
    "deepseek_v41": (
        {
            "model_type": "deepseek_v41",
            "dtype": "bfloat16",
            "text_config": deepseek("deepseek_v41_text", first_k_dense_replace=0, swiglu_limit=10.0),
            "vision_config": VISION,
            "quantization_config": {**BLOCK_FP8, "scale_fmt": "ue8m0", "expert_dtype": "fp4"},
        },
        {**DEEPSEEK, **MXFP4, "activation_dtype": "fp8", "swiglu_limit": 10.0},
    ),
    "axk2": (deepseek("axk2", mlp_layer_types=["dense"] + ["sparse"] * 7), DEEPSEEK),
    "dots3_note": (
        {"model_type": "dots3_note", "dtype": "bfloat16", "text_config": deepseek("dots3_note_text", dtype=None)},
        DEEPSEEK,
    ),
    "deepseek_ocr2": (
        {
            "model_type": "deepseek_ocr2",
            "dtype": "bfloat16",
            "text_config": deepseek("deepseek_ocr2_text", mlp_layer_types=["dense"] + ["sparse"] * 7),
            "vision_config": {"sam_config": {"hidden_size": 768}},
        },
        DEEPSEEK,
    ),
    "flint": (qwen("flint", shared_expert_intermediate_size=768), QWEN),
    "mellum": (qwen("mellum", mlp_layer_types=["sparse"] * 6), QWEN),
    "sarvam_moe": (qwen("sarvam_moe", num_shared_experts=1, first_k_dense_replace=1), QWEN),
    "cohere2_moe": (
        qwen("cohere2_moe", first_k_dense_replace=1, num_shared_experts=1),
        sizes(512, 1408, 32, 4),
    ),
    "dots1": (deepseek("dots1", n_group=1, topk_group=1), DEEPSEEK),
    "mistral4": (deepseek("mistral4", first_k_dense_replace=0), DEEPSEEK),
    "mistral_large4": (
        {
            "model_type": "mistral_large4",
            "dtype": "bfloat16",
            "text_config": deepseek("mistral_large4_text"),
            "vision_config": {"model_type": "pixtral"},
        },
        DEEPSEEK,
    ),
    "solar_open": (deepseek("solar_open"), DEEPSEEK),
    "axk1": (deepseek("axk1", moe_layer_freq=1), DEEPSEEK),
    "glm4v_moe": (
        {
            "model_type": "glm4v_moe",
            "text_config": deepseek("glm4v_moe_text", n_shared_experts=1, dtype="bfloat16"),
            "vision_config": VISION,
            "quantization_config": {**CHANNEL_FP8, "ignore": ["lm_head", "re:.*visual.*"]},
        },
        {**DEEPSEEK, **FP8, "quant_type": "per_Token"},
    ),
    "glm4_moe_lite": (deepseek("glm4_moe_lite", mlp_layer_types=["dense"] + ["sparse"] * 7), DEEPSEEK),
    "glm5_next": (
        {
            "model_type": "glm5_next",
            "dtype": "bfloat16",
            "text_config": deepseek("glm5_next_text", first_k_dense_replace=3, swiglu_limit=10.0),
            "vision_config": {**VISION, "swiglu_limit": 10.0},
            "quantization_config": {**BLOCK_FP8, "modules_to_not_convert": ["model.language_model.layers.0.mlp"]},
        },
        {**DEEPSEEK, **FP8, "swiglu_limit": 10.0},
    ),
    "kimi_linear": (
        {
            "model_type": "kimi_linear",
            "hidden_act": "silu",
            "hidden_size": 512,
            "intermediate_size": 2304,
            "moe_intermediate_size": 256,
            "num_experts": 32,
            "num_experts_per_token": 8,
            "num_shared_experts": 1,
            "first_k_dense_replace": 1,
            "moe_layer_freq": 1,
            "num_hidden_layers": 6,
            "dtype": "bfloat16",
        },
        sizes(512, 256, 32, 8),
    ),
    "kimi_vl": (
        {"model_type": "kimi_vl", "torch_dtype": "bfloat16", "text_config": deepseek("deepseek_v3")},
        DEEPSEEK,
    ),
    "qwen2_moe": (qwen("qwen2_moe", shared_expert_intermediate_size=1408), QWEN),
    "qwen3_omni_moe": (
        {
            "model_type": "qwen3_omni_moe",
            "thinker_config": {
                "model_type": "qwen3_omni_moe_thinker",
                "dtype": "bfloat16",
                "text_config": qwen("qwen3_omni_moe_text"),
                "audio_config": {"d_model": 1280, "encoder_layers": 32},
                "vision_config": VISION,
            },
            "talker_config": {"text_config": qwen("qwen3_omni_moe_talker_text", num_experts=8)},
        },
        QWEN,
    ),
    "qwen3_vl_moe": (
        {"model_type": "qwen3_vl_moe", "text_config": qwen("qwen3_vl_moe_text"), "vision_config": VISION},
        QWEN,
    ),
    "qwen4_exp": (
        {
            "model_type": "qwen4_exp",
            "text_config": qwen("qwen4_exp_text", shared_expert_intermediate_size=384),
            "vision_config": VISION,
        },
        QWEN,
    ),
    "laguna": (
        qwen("laguna", shared_expert_intermediate_size=384, mlp_layer_types=["dense"] + ["sparse"] * 5),
        QWEN,
    ),
    "minimax_m1": (mixtral("minimax_m1", postnorm=True, attn_type_list=[0, 1] * 4), MIX),
    "minimax": (mixtral("minimax"), MIX),
    "hunyuan_v1_moe": (
        {
            "model_type": "hunyuan_v1_moe",
            "hidden_act": "silu",
            "hidden_size": 512,
            "intermediate_size": 384,
            "moe_intermediate_size": [384] * 6,
            "moe_topk": [8] * 6,
            "num_experts": 64,
            "num_shared_expert": [1] * 6,
            "use_mixed_mlp_moe": True,
            "num_hidden_layers": 6,
            "torch_dtype": "bfloat16",
        },
        sizes(512, 384, 64, 8),
    ),
    "hy_v3": (
        {
            "model_type": "hy_v3",
            "hidden_act": "silu",
            "hidden_size": 512,
            "intermediate_size": 1664,
            "expert_hidden_dim": 384,
            "num_experts": 24,
            "num_experts_per_tok": 8,
            "num_shared_experts": 1,
            "first_k_dense_replace": 1,
            "num_hidden_layers": 8,
            "torch_dtype": "bfloat16",
        },
        sizes(512, 384, 24, 8),
    ),
    "hy_v4": (
        deepseek("hy_v4", swiglu_limit=10.0, mlp_layer_types=["dense"] + ["sparse"] * 7),
        {**DEEPSEEK, "swiglu_limit": 10.0},
    ),
    **MORE_FAMILIES,
}
"""By the book's model type."""

WITHOUT_KERNEL: dict[str, tuple[Fields, Fields]] = {
    "gemma4": (
        {
            "model_type": "gemma4",
            "dtype": "bfloat16",
            "text_config": {
                "model_type": "gemma4_text",
                "enable_moe_block": True,
                "hidden_activation": "gelu_pytorch_tanh",
                "hidden_size": 704,
                "intermediate_size": 2112,
                "moe_intermediate_size": 352,
                "num_experts": 32,
                "top_k_experts": 8,
                "num_hidden_layers": 6,
            },
            "vision_config": VISION,
        },
        sizes(704, 352, 32, 8, activation="GeluTanh"),
    ),
    "nemotron_h": (
        {
            "model_type": "nemotron_h",
            "hidden_size": 672,
            "hybrid_override_pattern": "MEME*-E",
            "mlp_hidden_act": "relu2",
            "moe_intermediate_size": 464,
            "moe_shared_expert_intermediate_size": 928,
            "n_routed_experts": 32,
            "n_shared_experts": 1,
            "num_experts_per_tok": 6,
            "num_hidden_layers": 7,
            "torch_dtype": "bfloat16",
        },
        sizes(672, 464, 32, 6, activation="Relu2", gated=False),
    ),
}
"""Types whose activation has no kernel of AITER."""
