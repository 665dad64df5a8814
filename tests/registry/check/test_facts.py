# ruff: noqa: E501  (tables: one case, one line)
"""Incidents and traps that users met, rebuilt from the threads: the wrong deployment is found, the right one is silent."""

from typing import Any

import pytest

from support.book.observations import (
    A4W4,
    A8W4,
    BF16,
    BLOCK,
    GFX1250,
    INTERLEAVED,
    MXFP8,
    PLAIN,
    SEPARATED,
    SITU,
    SWIGLU,
    TENSOR,
    TILES,
    TOKEN,
    bent,
    deployment,
    report,
)

Raw = dict[str, Any]
SEP, ITLV, AITER = {"gate_mode": "separated"}, {"gate_mode": "interleave"}, {"kernels": [{"backend": "aiter"}]}
BIAS = {"bias_passed": True, "swiglu_limit": 7.0}
OSS: Raw = {
    "model": "openai/gpt-oss-120b",
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_experts": 128,
    "top_k": 4,
    "gate_up_order": "GUGU",
    "bias": True,
    "activation_dtype": "bf16",
}
DSV4: Raw = {
    "model": "deepseek-ai/DeepSeek-V4-Pro",
    "hidden_size": 7168,
    "intermediate_size": 3072,
    "num_experts": 384,
    "top_k": 6,
    "tp": 8,
}
K3: Raw = {
    "model": "moonshotai/Kimi-K3",
    "hidden_size": 3584,
    "intermediate_size": 3072,
    "num_experts": 896,
    "top_k": 16,
    "tp": 8,
}
QWEN: Raw = {"hidden_size": 4096, "intermediate_size": 1536, "num_experts": 128, "top_k": 8, "tp": 8}
KIMI: Raw = {"hidden_size": 7168, "intermediate_size": 2048, "num_experts": 384, "top_k": 8, "tp": 1, "ep": 4}
MASK = {"expert_map": "mask"}
TRITON: Raw = {"kernels": [{"backend": "triton"}]}
EPLB: Raw = {"eplb": True}
VLLM = {"VLLM_ROCM_USE_AITER": "1"}
FUSED = {"VLLM_ROCM_USE_AITER_FUSION_SHARED_EXPERTS": "1"}
TORCH = {"ATOM_V4_TORCH_MOE": "1", "ATOM_USE_TRITON_MOE": "1"}
DEEPSEEK: Raw = {
    "model": "deepseek-ai/DeepSeek-R1",
    "hidden_size": 7168,
    "intermediate_size": 2048,
    "num_experts": 256,
    "top_k": 8,
    "tp": 1,
    "ep": 8,
}
UNTAGGED = {"w13_weight": {"is_shuffled": False}, "w2_weight": {"is_shuffled": False}}
OSS_GUI = deployment(SWIGLU, INTERLEAVED, pad=256, applied=ITLV | BIAS, tokens=[1, 16], **OSS)
MXMOE = {
    "kernels": [
        {
            "tokens": 1,
            "stage1": "flydsl_mxmoe_g1_a4w4_16x256x256_f16in_nt",
            "stage2": "flydsl_mxmoe_g2_a4w4_16x256x256_atomic_nt",
        }
    ]
}
XCD = {
    "intermediate_pad": 128,
    "kernels": [{"tokens": 4, "stage1": "flydsl_moe1_afp8_wfp4_bf16_t32x128x256_w2_gui_xcd4_fp8"}],
}
CK = "moe_ck2stages_gemm1_256x128x128x128_1x4_{}_v3_Nswizzle0_Quant3_MulRoutedWeight0_silu_FP4X2_FP4X2_B16"

WRONG: dict[str, tuple[Raw, set[str]]] = {
    "one object for layout and gate_mode (ATOM#718)": (deployment(A8W4, INTERLEAVED, applied=SEP, **DSV4), {"layout_mismatch"}),
    "AITER and engine move together (vllm#34192)": (deployment(A4W4, SEPARATED, applied=SEP, engine="vllm", producer="quark", aiter="0.1.9"), {"version_unsupported"}),
    "gfx1250 bytes before the kernels (aiter#3871)": (deployment(A4W4, GFX1250, applied=ITLV, arch="gfx1250", aiter="0.1.16"), {"version_unsupported"}),
    "fn weights on an fnuz GPU (ATOM#1793)": (bent(deployment(BLOCK, TILES, applied=AITER, arch="gfx942", cu_num=304), w2_weight={"dtype": "fp8_e4m3fn"}), {"contract_mismatch"}),
    "interleaved scales padded to 12 groups (aiter#4130)": (deployment(A8W4, INTERLEAVED, applied=ITLV, aiter="0.1.17", **DSV4), {"version_unsupported"}),
    "interleaved scales of 92 groups of the hidden size (aiter#4130)": (deployment(A8W4, INTERLEAVED, applied=ITLV, aiter="0.1.17", hidden_size=2944, intermediate_size=2048, num_experts=64, top_k=4), {"version_unsupported"}),
    "192 columns of fp16 on gfx950 before tiles of 64": (deployment({**BF16, "weight_dtype": "fp16", "activation_dtype": "fp16"}, TILES, applied=AITER, aiter="0.1.7.post5", **QWEN), {"known_bad"}),
    "CK's fp4 kernels with 96 experts a rank (aiter#2343)": (deployment(A4W4, SEPARATED, applied=AITER | MASK, aiter="0.1.10.post2", **KIMI), {"known_bad"}),
    "no tile of 192 (aiter#915)": (deployment(BF16, TILES, applied=AITER, arch="gfx942", cu_num=304, aiter="0.1.5", **QWEN), {"known_bad"}),
    "unaligned CK size (aiter#5444)": (deployment(BF16, TILES, applied=AITER, **QWEN | {"intermediate_size": 1792}), {"pad_required"}),
    "unpadded gpt-oss (vllm#34285)": (deployment(SWIGLU, SEPARATED, applied=SEP | BIAS, **OSS), {"pad_required"}),
    "pads not passed (vllm#46201)": (bent(OSS_GUI, applied={"hidden_pad": 0}), {"pad_unreported"}),
    "doubled where nobody doubles": (bent(OSS_GUI, query={"engine": "atom"}, applied={"intermediate_pad": 384}), {"pad_invalid"}),
    "pads of two rules": (bent(OSS_GUI, w2_weight={"physical_shape": [128, 2944, 3072]}), {"pad_invalid"}),
    "rows of one cu_num, two GPUs (aiter#3703)": (deployment(A4W4, GFX1250, applied=ITLV, arch="gfx1250", aiter="0.1.15"), {"ambiguous_key"}),
    "no gate (vllm#56590)": (deployment(BF16, TILES, applied=AITER, gated=False), {"unsupported"}),
    "faults without a row (vllm#43605)": (deployment(BLOCK, TILES, applied=AITER | {"expert_map": "mask"}, model="MiniMaxAI/MiniMax-M2.5", hidden_size=3072, intermediate_size=1536, num_experts=256, top_k=8, ep=8, aiter="0.1.14"), {"known_bad"}),
    "a layout without a shuffle (T1)": (bent(deployment(BF16, TILES, applied=AITER, engine="sglang"), **UNTAGGED), {"tag_lost"}),
    "de-interleaved GGUU rows (T3)": (bent(deployment(A4W4, SEPARATED, applied=SEP, engine="vllm", producer="quark"), applied={"source_order": "GUGU"}), {"source_order_mismatch"}),
    "bias converted, not passed (T4)": (bent(OSS_GUI, applied={"bias_passed": False}), {"contract_mismatch"}),
    "a16w4 SiTU interleaved (T6)": (deployment(SITU, INTERLEAVED, applied=SEP, engine="sglang", **K3), {"layout_mismatch"}),
    "weights apart, scales alternating (T7)": (deployment(A4W4, ("sep16", "e8_gui16", "sep16", "e8"), applied=SEP, engine="sglang", env={"AITER_FORCE_A8W4": "1"}), {"layout_mismatch"}),
    "mxfp8 apart (T9)": (deployment(MXFP8, SEPARATED, applied=SEP, engine="atom"), {"layout_mismatch"}),
    "row groups on gfx1250 (T12)": (deployment(A4W4, ("gui16", "n32k4_gurow", "sep16", "n32k4"), applied=ITLV, arch="gfx1250"), {"layout_mismatch"}),
    "gate_mode not sent without a limit (T15)": (bent(OSS_GUI, applied={"gate_mode": "separated", "swiglu_limit": 0.0}), {"layout_mismatch"}),
    "gate_mode dropped by a wrapper (T16)": (deployment(A8W4, INTERLEAVED, applied=ITLV, engine="vllm", aiter="0.1.13"), {"version_unsupported"}),
    "two activation switches": (deployment(SITU, INTERLEAVED, applied=ITLV, env={"AITER_SITUV2_A8W4": "1", "AITER_SITUV2_A4W4": "1"}, activation_dtype="fp8", **K3), {"flag_conflict"}),
    "a switch of the next release": (deployment(SITU, SEPARATED, applied=SEP, aiter="0.1.19", env={"AITER_SITUV2_A4W4": "1"}, **K3), {"flag_unknown"}),
    "mxmoe drops biases": (deployment(SWIGLU, SEPARATED, pad=256, applied=SEP | BIAS | MXMOE, tokens=[1], **OSS), {"contract_mismatch"}),
    "mxmoe knows no mask": (deployment(A4W4, SEPARATED, ep=8, applied=SEP | MXMOE | {"expert_map": "mask"}, tokens=[1]), {"unsupported"}),
    "Opus reads alternating rows": (deployment(A8W4, SEPARATED, applied=ITLV | {"kernels": [{"tokens": 64, "stage1": "opus_moe1_afp8_wfp4_bf16_t64x256_fp8"}]}), {"layout_mismatch"}),
    "a preshuffle-off kernel on tiles": (deployment(A4W4, SEPARATED, applied=SEP | {"kernels": [{"tokens": 64, "stage1": CK.format("MulABScale")}]}), {"layout_mismatch"}),
    "CK-Tile auto on separated rows": (deployment(A4W4, SEPARATED, applied=SEP, env={"AITER_FLYDSL_FORCE": "0", "AITER_KSPLIT": "2"}), {"layout_mismatch"}),
    "int4 that was never packed": (deployment({"weight_dtype": "i4x2", "quant_type": "per_1x32", "activation": "Silu"}, PLAIN, applied=AITER), {"layout_mismatch"}),
    "int4 in ATOM": (deployment({"weight_dtype": "i4x2", "quant_type": "per_1x32", "activation": "Silu"}, PLAIN, engine="atom"), {"unsupported"}),
    "per-tensor fp8 without an instance": (deployment(TENSOR, TILES, applied=AITER, aiter="0.1.16.post2", hidden_size=4096, intermediate_size=1536, num_experts=192, top_k=8, tp=8), {"known_bad"}),
    "tiles that an XCD swizzle leaves out (aiter#3933)": (deployment(A8W4, INTERLEAVED, pad=512, applied=ITLV | XCD | {"hidden_pad": 0}, aiter="0.1.16", **DSV4), {"known_bad"}),
    "MXFP4 at 384 columns in CK's kernels (vllm#35637)": (deployment(A4W4, SEPARATED, applied=AITER, aiter="0.1.10.post2", **QWEN | {"tp": 4}), {"pad_required"}),
    "per-tensor fp8 in tiles of 256 along K (aiter#3202 at TP 4)": (deployment(TENSOR, TILES, applied=AITER, aiter="0.1.16.post2", hidden_size=4096, intermediate_size=1536, num_experts=192, top_k=8, tp=4), {"known_bad"}),
    "per-tensor fp8 at 448 columns a rank": (deployment(TENSOR, TILES, applied=AITER, arch="gfx942", cu_num=304, **QWEN | {"intermediate_size": 1792, "tp": 4}), {"pad_required"}),
    "fp8 by row at 352 columns, which no tile divides (GLM-4.5-Air at TP 4)": (deployment(TOKEN, TILES, applied=AITER, arch="gfx942", cu_num=304, **QWEN | {"intermediate_size": 1408, "tp": 4}), {"unsupported"}),
    "fp8 by block at 384 columns before 0.1.9.post1": (deployment(BLOCK, TILES, applied=AITER, aiter="0.1.9", tokens=[1], **QWEN | {"tp": 4}), {"known_bad"}),
    "rows that do not fill a scale tile move": (bent(deployment(A4W4, SEPARATED, applied=SEP | {"eplb": True}), w13_weight={"logical_shape": [64, 720, 5120], "physical_shape": [64, 720, 5120]}, w13_weight_scale={"logical_shape": [64, 720, 160], "physical_shape": [64 * 720, 160]}), {"expert_view"}),
    "an fp4 kernel before FlyDSL": (deployment(A4W4, SEPARATED, aiter="0.1.10", applied={"kernels": [{"tokens": 64, "stage1": "flydsl_moe1_afp4_wfp4_bf16_t32x128x256_w2"}]}), {"version_unsupported"}),
    "Opus stage 2 before its time": (deployment(A8W4, INTERLEAVED, aiter="0.1.16", applied=ITLV | {"kernels": [{"tokens": 64, "stage2": "opus_moe2_afp8_wfp4_atomic_t64x128x256_sbm64"}]}), {"version_unsupported"}),
    "a bias that alternates on gfx950 (T12)": (bent(OSS_GUI, w13_bias={"layout": "gurow"}), {"layout_mismatch"}),
    "no clamp for Triton, a model of one's own": (deployment(SWIGLU, PLAIN, applied=TRITON | {"swiglu_limit": 0.0}), {"contract_mismatch"}),
    "shared experts fused and balanced": (deployment(BLOCK, TILES, applied=AITER | EPLB, engine="vllm", env=VLLM | FUSED, **DEEPSEEK), {"flag_conflict"}),
    "ATOM's switches before one was deleted": (deployment(A4W4, PLAIN, applied=TRITON, engine="atom@0.1.5", env=TORCH), {"flag_conflict"}),
    "vLLM before it set AITER's switch": (deployment(SITU, INTERLEAVED, applied=SEP, engine="vllm@0.30.0", env=VLLM | {"VLLM_ROCM_USE_AITER_MOE_SITUV2_A8W4": "1"}, **K3), {"flag_conflict"}),
    "no clamp, DeepSeek V4": (deployment(A8W4, INTERLEAVED, applied=ITLV | {"swiglu_limit": 0.0}, **DSV4), {"contract_mismatch"}),
    "alternating rows for Triton's SiLU": (deployment(A4W4, ("gurow", "gurow", "plain", "plain"), applied={"kernels": [{"backend": "triton"}]}), {"layout_mismatch"}),
    "a switch with a letter too few": (deployment(A4W4, SEPARATED, applied=SEP, engine="atom", env={"ATOM_MOE_GUITLV": "1"}), {"flag_unknown"}),
}  # fmt: skip

RIGHT: dict[str, Raw] = {
    "AITER takes 0 for 7, a model of one's own": deployment(SWIGLU, SEPARATED, applied=SEP | {"swiglu_limit": 0.0}),
    "AITER 0.1.14 takes 0 for 7 too": deployment(SWIGLU, SEPARATED, aiter="0.1.14", applied=SEP | {"swiglu_limit": 0.0}),
    "shared experts apart and balanced": deployment(BLOCK, TILES, applied=AITER | EPLB, engine="vllm", env=VLLM, **DEEPSEEK),
    "balanced, and nothing to fuse": deployment(BLOCK, TILES, applied=AITER | EPLB, engine="vllm", env=VLLM | FUSED, model="MiniMaxAI/MiniMax-M2.5", hidden_size=3072, intermediate_size=1536, num_experts=256, top_k=8, ep=8),
    "balanced, and fused by kernels that are off": deployment(BLOCK, PLAIN, applied=TRITON | EPLB, engine="vllm", env={"VLLM_ROCM_USE_AITER": "0"} | FUSED, **DEEPSEEK),
    "ATOM's switches after one was deleted": deployment(A4W4, PLAIN, applied=TRITON, engine="atom@0.1.6rc0", env={"ATOM_USE_TRITON_MOE": "1"}),
    "vLLM 0.30 and both switches of a8w4": deployment(SITU, INTERLEAVED, applied=ITLV, engine="vllm@0.30.0", env=VLLM | {"VLLM_ROCM_USE_AITER_MOE_SITUV2_A8W4": "1", "AITER_SITUV2_A8W4": "1"}, activation_dtype="fp8", **K3),
    "vLLM 0.33 sets AITER's switch of a8w4": deployment(SITU, INTERLEAVED, applied=ITLV, engine="vllm@0.33.0", env=VLLM | {"VLLM_ROCM_USE_AITER_MOE_SITUV2": "a8w4"}, activation_dtype="fp8", **K3),
    "vLLM 0.33 sets AITER's switch of a4w4": deployment(SITU, SEPARATED, applied=SEP, engine="vllm@0.33.0", env=VLLM, activation_dtype="fp4x2", **K3),
    "vLLM 0.33 overrides AITER's switch": deployment(SITU, INTERLEAVED, applied=ITLV, engine="vllm@0.33.0", env=VLLM | {"VLLM_ROCM_USE_AITER_MOE_SITUV2": "a8w4", "AITER_SITUV2_A8W4": "0"}, activation_dtype="fp8", **K3),
    "vLLM's A4W4_DSV4 where AITER is off": deployment(A4W4, PLAIN, applied=TRITON, engine="vllm@0.33.0", env={"VLLM_ROCM_USE_AITER": "0", "VLLM_ROCM_USE_AITER_MOE_A4W4_DSV4": "1"}, **DSV4),
    "two recipes for one key: apart": deployment(A4W4, SEPARATED, applied=SEP, **DSV4),
    "two recipes for one key: alternating": deployment(A8W4, INTERLEAVED, applied=ITLV, **DSV4),
    "interleaved scales padded by 0.1.18": deployment(A8W4, INTERLEAVED, applied=ITLV, aiter="0.1.18", **DSV4),
    "interleaved scales of 92 groups padded by 0.1.18": deployment(A8W4, INTERLEAVED, applied=ITLV, aiter="0.1.18", hidden_size=2944, intermediate_size=2048, num_experts=64, top_k=4),
    "separated scales of 12 groups, any AITER": deployment(A4W4, SEPARATED, applied=SEP, aiter="0.1.16", **DSV4),
    "a split K that AITER picks itself (aiter#3984)": deployment(A4W4, SEPARATED, applied=SEP, env={"AITER_FLYDSL_FORCE": "0"}, tokens=[1, 4, 64], **KIMI | {"tp": 4, "ep": 1}),
    "FlyDSL's pads mended in a post-release": deployment(SWIGLU | {"activation_dtype": "fp4x2"}, SEPARATED, pad=256, applied=SEP | BIAS, aiter="0.1.15.post3", tokens=[512], **{name: value for name, value in OSS.items() if name != "activation_dtype"} | {"tp": 4}),
    "192 tuned online": deployment(BF16, TILES, applied=AITER, arch="gfx942", cu_num=304, aiter="0.1.7.post5", env={"AITER_ONLINE_TUNE": "1"}, **QWEN),
    "192 from the release on that has tiles of 64": deployment(BF16, TILES, applied=AITER, arch="gfx942", cu_num=304, aiter="0.1.8", **QWEN),
    "192 padded to 256": deployment(BF16, TILES, pad=256, applied=AITER, arch="gfx942", cu_num=304, aiter="0.1.7.post5", **QWEN),
    "48 experts of the shape of which 96 faulted": deployment(A4W4, SEPARATED, applied=AITER | MASK, aiter="0.1.10.post2", **KIMI | {"ep": 8}),
    "96 experts of that shape without expert parallelism": deployment(A4W4, SEPARATED, applied=AITER, aiter="0.1.10.post2", **KIMI | {"num_experts": 96, "ep": 1}),
    "96 experts of that shape in FlyDSL's kernels": deployment(A4W4, SEPARATED, applied=AITER | MASK | SEP, aiter="0.1.20", **KIMI),
    "an XCD swizzle over top 8": deployment(A8W4, INTERLEAVED, pad=512, applied=ITLV | XCD | {"hidden_pad": 0}, aiter="0.1.18", **DSV4 | {"top_k": 8}),
    "an XCD swizzle without a pad": deployment(A8W4, INTERLEAVED, applied=ITLV | XCD | {"intermediate_pad": 0}, aiter="0.1.18", **DSV4),
    "MXFP4 at 384 columns in FlyDSL's kernels": deployment(A4W4, SEPARATED, applied=SEP, **QWEN | {"tp": 4}),
    "MXFP4 at 768 columns in CK's kernels": deployment(A4W4, SEPARATED, applied=AITER, aiter="0.1.10.post2", **QWEN | {"tp": 2}),
    "per-tensor fp8 at 512 columns": deployment(TENSOR, TILES, applied=AITER, **QWEN | {"intermediate_size": 1024, "tp": 2}),
    "per-tensor fp8 at 384 columns on gfx942": deployment(TENSOR, TILES, applied=AITER, arch="gfx942", cu_num=304, **QWEN | {"tp": 4}),
    "fp8 by row at 384 columns, blocks that 128 divides": deployment(TOKEN, TILES, applied=AITER, tokens=[64], **QWEN | {"tp": 4}),
    "fp8 by row at 320 columns has a tile": deployment(TOKEN, TILES, applied=AITER, **QWEN | {"intermediate_size": 1600, "tp": 5}),
    "fp8 by row at 352 columns, padded": deployment(TOKEN, TILES, pad=128, applied=AITER | {"hidden_pad": 0}, arch="gfx942", cu_num=304, **QWEN | {"intermediate_size": 1408, "tp": 4}),
    "fp8 by block at 384 columns": deployment(BLOCK, TILES, applied=AITER, aiter="0.1.9.post1", tokens=[1], **QWEN | {"tp": 4}),
    "192 today": deployment(BF16, TILES, applied=AITER, **QWEN),
    "vLLM's own pads at TP 1": bent(OSS_GUI, query={"engine": "vllm"}, applied={"hidden_pad": 128, "intermediate_pad": 384}),
    "the legacy path sets no tags": bent(deployment(SWIGLU, INTERLEAVED, pad=256, applied=BIAS, aiter="0.1.13", tokens=[1, 16], **OSS), **UNTAGGED),
    "a8w4 SiTU follows its kernels": deployment(SITU, INTERLEAVED, applied=SEP, env={"AITER_SITUV2_A8W4": "1"}, activation_dtype="fp8", **K3),
    "MegaMoE takes no tags": bent(deployment(A8W4, INTERLEAVED, applied={"kernels": [{"backend": "mega"}]}, engine="atom", **DSV4), **UNTAGGED),
    "raw fp4 weights for CK": deployment(A4W4, ("plain", "e8", "plain", "e8"), applied=SEP),
    "a preshuffle-on kernel": deployment(A4W4, SEPARATED, applied=SEP | {"kernels": [{"tokens": 64, "stage1": CK.format("MulABScaleShuffled")}]}),
    "mxfp8 whatever gate_mode says": deployment(MXFP8, INTERLEAVED, applied=SEP),
    "scales filled with zero, one and 1.0": bent(OSS_GUI, w13_weight_scale={"pad_fill": 1}, w2_weight_scale={"pad_fill": 127}),
    "SGLang keeps GGUU models apart": deployment(SWIGLU, SEPARATED, applied=SEP, engine="sglang", env={"SGLANG_USE_AITER_MOE_GU_ITLV": "1"}, activation_dtype=None),
    "alternating rows for Triton's SwiGLU": deployment({**SWIGLU, "activation_dtype": "bf16"}, ("gurow", "gurow", "plain", "plain"), applied={"swizzle_mx_scale": "none", "kernels": [{"backend": "AITER_TRITON_MXFP4_BF16"}]}, engine="vllm"),
    "a limit that general knowledge doubts": deployment(A8W4, INTERLEAVED, applied=ITLV | {"swiglu_limit": 7.0}, **DSV4),
    "a switch of the post-release that reads it": deployment(SITU, SEPARATED, applied=SEP, aiter="0.1.19.post1", env={"AITER_SITUV2_A4W4": "1"}, activation_dtype="fp4x2", **{name: value for name, value in K3.items() if name != "activation_dtype"}),
    "a build known by its commit": deployment(SITU, SEPARATED, applied=SEP, aiter="0.1.20.dev+ge4048607a5", env={"AITER_SITUV2_A4W4": "1"}, activation_dtype="fp4x2", **K3),
    "switches of others": deployment(A4W4, SEPARATED, applied=SEP, engine="vllm", env={"VLLM_ROCM_USE_AITER_MLA": "1", "GPU_ARCH": "gfx950", "MY_MOE_GU_ITLV": "1"}),
    "gfx1250 decodes on a view": deployment(A4W4, ("sep16", "n32k4", "sep16", "n32k4"), applied={"kernels": [{"backend": "triton"}]}, arch="gfx1250"),
}  # fmt: skip

UNREAD: dict[str, Raw] = {
    "vLLM before VLLM_ROCM_USE_AITER_MOE_SITUV2": deployment(SITU, SEPARATED, applied=SEP, engine="vllm@0.30.0", env=VLLM | {"VLLM_ROCM_USE_AITER_MOE_SITUV2": "a8w4"}, **K3),
    "vLLM before A4W4_DSV4": deployment(A4W4, SEPARATED, applied=SEP, engine="vllm@0.31.0", env=VLLM | {"VLLM_ROCM_USE_AITER_MOE_A4W4_DSV4": "1"}, **DSV4),
    "SGLang before SGLANG_USE_AITER_MOE_GU_ITLV": bent(OSS_GUI, query={"engine": "sglang@0.5.12", "env": {"SGLANG_USE_AITER": "1", "SGLANG_USE_AITER_MOE_GU_ITLV": "0"}}),
    "AITER before AITER_SITUV2_A4W4, bf16 activations in its place": deployment(SITU, SEPARATED, applied=SEP, aiter="0.1.19", env={"AITER_SITUV2_A4W4": "1"}, activation_dtype="fp4x2", **K3),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_a_switch_that_is_not_read_is_a_warning_and_contradicts_nothing(name: str) -> None:
    found = report(UNREAD[name]).findings
    assert "flag_unknown" in {finding.code for finding in found}
    assert {finding.severity for finding in found} == {"warning"}, found


INT4_FP8: Raw = {"weight_dtype": "i4x2", "quant_type": "per_Token", "activation": "Silu", "activation_dtype": "fp8"}


@pytest.mark.parametrize(("producer", "conflict"), [("quark", False), ("compressed-tensors", True)])
def test_a_backend_that_the_engine_does_not_ask_for_contradicts_nothing(producer: str, conflict: bool) -> None:
    """Quark's int4 with fp8 activations runs AITER in vLLM, whatever --moe-backend says."""
    tiles = ("sep16_int4", "plain", "sep16_int4", "plain")
    env = VLLM | {"--moe-backend": "triton"}
    found = report(deployment(INT4_FP8, tiles, applied=AITER, engine="vllm", producer=producer, env=env)).findings
    assert ("flag_conflict" in {finding.code for finding in found}) is conflict


@pytest.mark.parametrize("name", WRONG)
def test_the_incident_is_found(name: str) -> None:
    raw, wanted = WRONG[name]
    found = report(raw)
    assert wanted <= {finding.code for finding in found.findings}, found


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_deployment_is_silent(name: str) -> None:
    found = report(RIGHT[name])
    assert (found.verdict, found.findings) == ("ok", ()), found


W2_ALONE: Raw = {"w2_weight": {"layout": "sep16", "is_shuffled": False}}
TP_UNKNOWN = {name: value for name, value in OSS_GUI["query"].items() if name != "tp"} | {"engine": "vllm"}


@pytest.mark.parametrize(
    "raw",
    [
        {"query": OSS_GUI["query"] | {"aiter": "0.1.13"}, "applied": {"tensors": W2_ALONE}},
        {"query": TP_UNKNOWN, "applied": OSS_GUI["applied"] | {"hidden_pad": 128, "intermediate_pad": 384}},
    ],
    ids=["w2 does not say who laid it out", "vLLM doubles at TP 1, and tp is unknown"],
)
def test_what_may_be_right_is_no_error(raw: Raw) -> None:
    assert not [finding for finding in report(raw).findings if finding.severity == "error"]
