"""config.json bodies of further families: structure as published, small numbers changed, and what a query then says."""

from typing import Any

from support.book.configurations import BLOCK_FP8, CHANNEL_FP8

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
    "step3_vl": (
        {
            "model_type": "step3_vl",
            "torch_dtype": "bfloat16",
            "text_config": {
                "model_type": "step3_text",
                "hidden_size": 512,
                "intermediate_size": 2304,
                "moe_intermediate_size": 640,
                "moe_num_experts": 48,
                "moe_top_k": 3,
                "share_expert_dim": 640,
                "moe_layers_enum": "4,5,6,7",
                "num_hidden_layers": 8,
            },
        },
        sizes(512, 640, 48, 3),
    ),
    "step3p5": (
        {
            "model_type": "step3p5",
            "hidden_size": 512,
            "intermediate_size": 1408,
            "moe_intermediate_size": 160,
            "moe_num_experts": 36,
            "moe_top_k": 8,
            "share_expert_dim": 160,
            "moe_layers_enum": [3, 4, 5, 6, 7],
            "swiglu_limits": [0.0] * 10,
            "num_hidden_layers": 8,
            "torch_dtype": "bfloat16",
        },
        sizes(512, 160, 36, 8, swiglu_limit=0.0),
    ),
    "step3p7": (
        {
            "model_type": "step3p7",
            "text_config": {
                "model_type": "step3p5",
                "hidden_size": 512,
                "moe_intermediate_size": 160,
                "n_routed_experts": 36,
                "num_experts_per_tok": 8,
                "mlp_layer_types": ["dense"] * 3 + ["sparse"] * 5,
                "num_hidden_layers": 8,
                "dtype": "bfloat16",
            },
        },
        sizes(512, 160, 36, 8),
    ),
    "bailing_moe": (
        {
            "model_type": "bailing_moe_v2",
            "hidden_act": "silu",
            "hidden_size": 512,
            "intermediate_size": 1280,
            "moe_intermediate_size": 256,
            "num_experts": 32,
            "num_experts_per_tok": 8,
            "num_shared_experts": 1,
            "first_k_dense_replace": 1,
            "num_hidden_layers": 6,
            "torch_dtype": "bfloat16",
        },
        sizes(512, 256, 32, 8),
    ),
    "bailing_hybrid": (
        {
            "model_type": "bailing_hybrid",
            "hidden_act": "silu",
            "hidden_size": 640,
            "intermediate_size": 1536,
            "moe_intermediate_size": 192,
            "num_experts": 64,
            "num_experts_per_tok": 8,
            "num_shared_experts": 1,
            "first_k_dense_replace": 2,
            "num_hidden_layers": 6,
            "torch_dtype": "bfloat16",
        },
        sizes(640, 192, 64, 8),
    ),
    "bailing_moe_v3_vl": (
        {
            "model_type": "bailing_moe_v3_vl",
            "text_config": {
                "model_type": "bailing_hybrid",
                "hidden_act": "silu",
                "hidden_size": 640,
                "moe_intermediate_size": 192,
                "num_experts": 64,
                "num_experts_per_tok": 8,
                "num_hidden_layers": 6,
                "dtype": "bfloat16",
            },
        },
        sizes(640, 192, 64, 8),
    ),
    "longcat_flash": (
        {
            "model_type": "longcat_flash",
            "hidden_size": 768,
            "ffn_hidden_size": 1536,
            "expert_ffn_hidden_size": 256,
            "moe_topk": 12,
            "n_routed_experts": 64,
            "zero_expert_num": 32,
            "num_layers": 7,
            "torch_dtype": "bfloat16",
        },
        sizes(768, 256, 64, 12),
    ),
    "ernie4_5_moe": (
        {
            "model_type": "ernie4_5_moe",
            "hidden_act": "silu",
            "hidden_size": 512,
            "intermediate_size": 1536,
            "moe_intermediate_size": 192,
            "moe_num_experts": 64,
            "moe_num_shared_experts": 2,
            "moe_k": 6,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 5,
            "moe_layer_interval": 1,
            "use_bias": False,
            "num_hidden_layers": 8,
            "torch_dtype": "bfloat16",
        },
        sizes(512, 192, 64, 6),
    ),
    "exaone_moe": (
        qwen("exaone_moe", num_shared_experts=1, first_k_dense_replace=1, mlp_layer_types=["dense"] + ["sparse"] * 5),
        QWEN,
    ),
    "lfm2_moe": (
        {
            "model_type": "lfm2_moe",
            "hidden_size": 512,
            "intermediate_size": 1792,
            "moe_intermediate_size": 448,
            "num_dense_layers": 2,
            "num_experts": 32,
            "num_experts_per_tok": 4,
            "layer_types": ["conv", "conv", "full_attention"] * 2,
            "num_hidden_layers": 6,
            "dtype": "bfloat16",
        },
        sizes(512, 448, 32, 4),
    ),
    "afmoe": (qwen("afmoe", num_dense_layers=2, num_shared_experts=1, global_attn_every_n_layers=4), QWEN),
    "olmoe": (qwen("olmoe", intermediate_size=256), sizes(512, 256, 32, 4)),
    "phimoe": (mixtral("phimoe", lm_head_bias=True), MIX),
    "granitemoe": (mixtral("granitemoehybrid", shared_intermediate_size=768), MIX),
    "jamba": (
        qwen("jamba", expert_layer_period=2, expert_layer_offset=1, attn_layer_period=8, attn_layer_offset=4),
        sizes(512, 1408, 32, 4),
    ),
    "dbrx": (
        {
            "model_type": "dbrx",
            "d_model": 768,
            "n_layers": 6,
            "n_heads": 48,
            "ffn_config": {
                "ffn_act_fn": {"name": "silu"},
                "ffn_hidden_size": 1344,
                "moe_num_experts": 16,
                "moe_top_k": 4,
                "moe_loss_weight": 0.05,
            },
            "torch_dtype": "bfloat16",
        },
        sizes(768, 1344, 16, 4),
    ),
    "arctic": (mixtral("arctic", moe_layer_frequency=2, parallel_attn_mlp_res=True), MIX),
    "inkling_mm_model": (
        {
            "model_type": "inkling_mm_model",
            "dtype": "bfloat16",
            "text_config": {
                "model_type": "inkling_model",
                "hidden_act": "silu",
                "hidden_size": 768,
                "intermediate_size": 384,
                "dense_intermediate_size": 3072,
                "dense_mlp_idx": 2,
                "n_routed_experts": 64,
                "n_shared_experts": 2,
                "num_experts_per_tok": 6,
                "num_hidden_layers": 6,
            },
            "vision_config": {"n_layers": 3},
        },
        sizes(768, 384, 64, 6, gate_up_order="GUGU"),
    ),
    "muse_spark": (
        {
            "model_type": "muse_spark",
            "dtype": "bfloat16",
            "text_config": {
                "model_type": "muse_spark_text",
                "hidden_act": "silu",
                "hidden_size": 1024,
                "intermediate_size": 2048,
                "moe_hidden_size": 512,
                "moe_intermediate_size": 256,
                "num_local_experts": 32,
                "num_experts_per_tok": 8,
                "mlp_layer_types": ["sparse"] * 6,
                "num_hidden_layers": 6,
            },
        },
        sizes(512, 256, 32, 8),
    ),
    "grok-1": (
        mixtral("grok-1", moe_intermediate_size=512, attn_logit_softcapping=30.0, residual_moe=True),
        sizes(512, 512, 16, 2, activation="Gelu"),
    ),
    "mistral3": (
        {
            "model_type": "mistral3",
            "dtype": "bfloat16",
            "text_config": deepseek("mistral4", first_k_dense_replace=0),
            "vision_config": {"model_type": "pixtral"},
        },
        DEEPSEEK,
    ),
    "internvl_chat": (
        {
            "model_type": "internvl_chat",
            "torch_dtype": "bfloat16",
            "llm_config": qwen("qwen3_moe"),
            "vision_config": {"model_type": "intern_vit_6b", "hidden_size": 1024},
        },
        QWEN,
    ),
    "internvl": ({"model_type": "internvl", "dtype": "bfloat16", "text_config": qwen("qwen3_moe")}, QWEN),
    "deepseek_vl_v2": (
        {"model_type": "deepseek_vl_v2", "torch_dtype": "bfloat16", "language_config": deepseek("deepseek_v2")},
        DEEPSEEK,
    ),
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
