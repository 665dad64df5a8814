"""What engines make of shared experts, deployment by deployment, as their code says."""

from typing import Any, NamedTuple

R1, R1_FP4, V32 = "deepseek-ai/DeepSeek-R1-0528", "amd/DeepSeek-R1-0528-MXFP4-v2", "deepseek-ai/DeepSeek-V3.2"
V4_PRO, V4_FP8 = "deepseek-ai/DeepSeek-V4-Pro", "sgl-project/DeepSeek-V4-Flash-FP8"
GLM47, GLM47_FP8, GLM5 = "zai-org/GLM-4.7", "zai-org/GLM-4.7-FP8", "zai-org/GLM-5-FP8"
K2_INT4, K2_FP4, K25_FP4 = "moonshotai/Kimi-K2-Thinking", "amd/Kimi-K2-Thinking-MXFP4", "amd/Kimi-K2.5-MXFP4"
M3, M3_MXFP8, M2 = "MiniMaxAI/MiniMax-M3", "MiniMaxAI/MiniMax-M3-MXFP8", "MiniMaxAI/MiniMax-M2"
NEXT, Q35, Q35_FP8, Q35_FP4 = (
    "Qwen/Qwen3-Next-80B-A3B-Instruct-FP8",
    "Qwen/Qwen3.5-397B-A17B",
    "Qwen/Qwen3.5-397B-A17B-FP8",
    "amd/Qwen3.5-397B-A17B-MXFP4",
)

FUSE = "VLLM_ROCM_USE_AITER_FUSION_SHARED_EXPERTS"
VLLM = {"VLLM_ROCM_USE_AITER": "1", FUSE: "1"}
FHMOE = {**VLLM, "--moe-backend": "aiter"}
AITER = {"SGLANG_USE_AITER": "1"}
OFF = {"--disable-shared-experts-fusion": "1"}
ENFORCE = {"--enforce-shared-experts-fusion": "1"}
DP_ATTENTION = {"--enable-dp-attention": "1"}


class Row(NamedTuple):
    """A deployment, and its experts of one rank, columns of topk_ids and table."""

    engine: str
    model: str
    given: dict[str, Any]
    local: int
    columns: int
    table: str = "tuned_fmoe.csv"


def row(engine: str, model: str, local: int, columns: int, table: str = "tuned_fmoe.csv", **given: Any) -> Row:
    """Write a row in the order that reads best: what is deployed, what comes out."""
    return Row(engine, model, given, local, columns, table)


# atom/model_ops/topK.py, atom/model_ops/moe.py and atom/model_ops/fused_moe/expert_layout.py (snapshot of 2026-08-22)
ATOM = [
    row("atom", R1, 257, 9, tp=8),
    row("atom", R1, 257, 9, tp=8, env={"ATOM_FUSE_SHARED_EXPERT": "0"}),  # the switch is not read at dp 1
    row("atom", R1, 33, 10, tp=8, ep=8),  # LEGACY_AITER: is_EP appends a column
    row("atom", R1, 65, 10, tp=4, ep=4, env={"ATOM_FUSE_SHARED_EXPERT": "0"}),
    row("atom", R1, 33, 10, dp=8, ep=8, env=DP_ATTENTION),  # without mori: all-gather, and the legacy metadata
    row("atom", R1, 33, 9, dp=8, ep=8, all_to_all="mori", env=DP_ATTENTION),  # LOCAL_REPLICA
    row("atom", R1, 32, 8, dp=8, ep=8, all_to_all="mori", env={**DP_ATTENTION, "ATOM_FUSE_SHARED_EXPERT": "0"}),
    row("atom", R1, 33, 9, dp=8, ep=8, all_to_all="mori", env={"ATOM_FUSE_SHARED_EXPERT": "0"}),  # no DP attention
    row("atom", R1, 33, 9, dp=8, ep=8, all_to_all="mori", env={**DP_ATTENTION, "--eplb-enable": "1"}),  # ⌈257/8⌉
    row(
        "atom", R1, 33, 9, dp=8, ep=8, all_to_all="mori",
        env={**DP_ATTENTION, "--eplb-enable": "1", "ATOM_FUSE_SHARED_EXPERT": "0"},
    ),
    row("atom@0.1.5", R1, 32, 8, dp=8, ep=8, all_to_all="mori", env=DP_ATTENTION),  # before pull request 1917
    row("atom@0.1.5", R1, 257, 9, tp=8),
    row("atom@0.1.5", R1, 33, 10, tp=8, ep=8),
    row("atom", V4_PRO, 384, 6, tp=8),  # shared fp8, routed fp4
    row("atom", V4_PRO, 48, 6, tp=8, ep=8),  # not fused: topk_ids has top_k columns
    row("atom", V4_FP8, 257, 7, tp=8),
    row("atom", Q35_FP4, 512, 10, tp=4),  # shared bf16
    row("atom", Q35_FP4, 128, 10, tp=4, ep=4),
    row("atom", Q35_FP8, 513, 11, tp=4),
    row("atom", NEXT, 129, 12, tp=4, ep=4),
    row("atom", K2_INT4, 384, 8, tp=8),
    row("atom", GLM47_FP8, 161, 9, tp=8),
    row("atom", M3_MXFP8, 129, 5, tp=4),
    row("atom", M2, 32, 8, tp=8, ep=8),  # no shared experts
]  # fmt: skip

# vllm/model_executor/layers/fused_moe/{utils,expert_map_manager}.py, experts/rocm_aiter_moe.py,
# layers/quantization/utils/config_utils.py, models/deepseek_v4/amd/model.py, models/minimax_m3/amd/model.py (0.33.0)
VLLM_ROWS = [
    row("vllm", R1, 256, 8, tp=8, env={"VLLM_ROCM_USE_AITER": "1"}),
    row("vllm", R1, 256, 8, tp=8, env={FUSE: "1"}),  # AITER is off
    row("vllm", R1, 256, 8, tp=8, env={**VLLM, "VLLM_ROCM_USE_AITER_MOE": "0"}),
    row("vllm", R1, 257, 9, tp=8, env=VLLM),
    row("vllm", R1, 33, 10, tp=8, ep=8, env=VLLM),
    row("vllm", R1, 32, 8, tp=8, ep=8, env={"VLLM_ROCM_USE_AITER": "1"}),  # exactly top_k columns
    row("vllm", R1_FP4, 257, 9, tp=8, env=VLLM),  # Quark, both alike
    row("vllm", V32, 257, 9, tp=8, env=VLLM),
    row("vllm", GLM5, 257, 9, tp=8, env=VLLM),
    row("vllm", GLM47, 161, 9, tp=8, env=VLLM),  # nothing is quantized
    row("vllm", GLM47_FP8, 160, 8, tp=8, env=VLLM),  # compressed-tensors is not implemented
    row("vllm", K2_INT4, 384, 8, tp=8, env=VLLM),
    row("vllm", Q35_FP8, 513, 11, tp=4, env=VLLM),
    row("vllm", Q35_FP8, 129, 12, tp=4, ep=4, env=VLLM),
    row("vllm", Q35_FP4, 512, 10, tp=4, env=VLLM),  # Quark excludes the shared expert
    row("vllm", M3, 129, 5, tp=8, env={FUSE: "1"}),  # this model reads the switch alone
    row("vllm", M3_MXFP8, 129, 5, tp=8, env=VLLM),
    row("vllm", M3_MXFP8, 16, 4, tp=8, ep=8, env=VLLM),  # never with expert parallelism
    row("vllm", V4_FP8, 257, 7, tp=8, env=VLLM),
    row("vllm", V4_FP8, 32, 6, tp=8, ep=8, env=VLLM),
    row("vllm", V4_PRO, 385, 7, "tuned_fhmoe.csv", tp=8, aiter="0.1.24", env=FHMOE),
    row("vllm", V4_PRO, 385, 7, "tuned_fhmoe.csv", tp=8, aiter="0.1.20.dev+ge4048607a5", env=FHMOE),
    row("vllm", V4_PRO, 384, 6, tp=8, aiter="0.1.20.post1", env=FHMOE),  # before aiter#4891
    row("vllm", V4_PRO, 384, 6, tp=8, aiter="0.1.24", env=VLLM),  # --moe-backend is auto
    row("vllm", V4_PRO, 384, 6, tp=4, aiter="0.1.24", env=FHMOE),
    row("vllm", V4_PRO, 48, 6, tp=8, ep=8, aiter="0.1.24", env=FHMOE),
    row("vllm", V4_PRO, 384, 6, tp=8, aiter="0.1.24", arch="gfx942", env=FHMOE),
    row("vllm", "deepseek-ai/DeepSeek-V4-Flash", 256, 6, tp=8, aiter="0.1.24", env=FHMOE),
    # the same files of older releases
    row("vllm@0.32.0", M3_MXFP8, 128, 4, tp=8, env=VLLM),  # MXFP8 came with 0.33
    row("vllm@0.28.0", M3_MXFP8, 129, 5, tp=8, env=VLLM),  # before quantization was looked at
    row("vllm@0.28.0", GLM47_FP8, 161, 9, tp=8, env=VLLM),
    row("vllm@0.29.0", GLM47_FP8, 160, 8, tp=8, env=VLLM),
    row("vllm@0.28.0", Q35_FP4, 512, 10, tp=4, env=VLLM),
    row("vllm@0.29.0", V4_PRO, 384, 6, tp=8, aiter="0.1.24", env=FHMOE),
    row("vllm@0.30.0", V4_PRO, 385, 7, "tuned_fhmoe.csv", tp=8, aiter="0.1.24", env=FHMOE),
]

# sglang/srt/models/{deepseek_v2,deepseek_v4,glm4_moe,minimax_m3_vl,qwen2_moe,qwen3_next,qwen3_5}.py,
# layers/moe/utils.py, layers/moe/fused_moe_triton/layer.py, layers/quantization/quark/quark.py (0.5.23)
SGLANG = [
    row("sglang", R1, 257, 9, tp=8),
    row("sglang", R1, 256, 8, tp=8, env=OFF),
    row("sglang", R1, 33, 9, tp=8, ep=8),  # no masked column
    row("sglang", R1, 32, 8, tp=8, ep=8, all_to_all="deepep"),
    row("sglang", R1, 32, 8, tp=8, ep=8, env={"--moe-a2a-backend": "mori"}),
    row("sglang", R1, 33, 9, tp=8, ep=8, all_to_all="mori", env=ENFORCE),
    row("sglang", R1, 256, 8, tp=8, env={"--enable-two-batch-overlap": "1"}),
    row("sglang", R1, 257, 9, tp=8, env={"--enable-two-batch-overlap": "1", **ENFORCE}),
    row("sglang", V32, 257, 9, tp=8, env=ENFORCE),
    row("sglang", R1_FP4, 257, 9, tp=8),
    row("sglang", V32, 256, 8, tp=8),  # DeepseekV32ForCausalLM is another architecture
    row("sglang", GLM5, 257, 9, tp=8),
    row("sglang", K25_FP4, 385, 9, tp=8),
    row("sglang", K2_FP4, 385, 9, tp=8),
    row("sglang", K2_INT4, 384, 8, tp=8),  # 384 experts, not of Quark
    row("sglang", GLM47_FP8, 161, 9, tp=8),
    row("sglang", GLM47_FP8, 41, 9, tp=4, ep=4),
    row("sglang", GLM47_FP8, 40, 8, tp=4, ep=4, all_to_all="mori"),
    row("sglang", M3_MXFP8, 129, 5, tp=8),
    row("sglang", M3_MXFP8, 128, 4, tp=8, arch="gfx942"),
    row("sglang", M3_MXFP8, 16, 4, tp=8, ep=8),
    row("sglang", V4_PRO, 384, 6, tp=8),
    row("sglang", V4_PRO, 385, 7, tp=8, env=ENFORCE),  # fp8 is quantized to fp4 while loading
    row("sglang", V4_PRO, 48, 6, tp=8, ep=8, env=ENFORCE),
    row("sglang", V4_PRO, 49, 7, tp=8, ep=8, all_to_all="megamoe", env=ENFORCE),
    row("sglang", Q35_FP8, 512, 10, tp=4),  # SGLANG_USE_AITER is 0
    row("sglang", Q35_FP8, 513, 11, tp=4, env=AITER),
    row("sglang", Q35_FP8, 129, 11, tp=4, ep=4, env=AITER),
    row("sglang", Q35_FP8, 128, 10, tp=4, ep=4, all_to_all="mori", env=AITER),
    row("sglang", Q35_FP8, 512, 10, tp=4, env={**AITER, **OFF}),
    row("sglang", NEXT, 513, 11, tp=4, env=AITER),
    row("sglang", "Qwen/Qwen3.8-Flash-Next", 513, 11, tp=4, env=AITER),  # Qwen4Exp's layers are Qwen3.5's
    row("sglang", Q35_FP4, 512, 10, tp=4, env=AITER),
    row("sglang", Q35_FP4, 513, 11, tp=4, env={**AITER, **ENFORCE}),  # bf16 is quantized while loading
    row("sglang", M2, 32, 8, tp=8, ep=8),
    # the same files of older releases
    row("sglang@0.5.10", Q35_FP8, 512, 10, tp=4, env=AITER),
    row("sglang@0.5.11", Q35_FP8, 513, 11, tp=4, env=AITER),
    row("sglang@0.5.13", NEXT, 512, 10, tp=4, env=AITER),
    row("sglang@0.5.14", NEXT, 513, 11, tp=4, env=AITER),
    row("sglang@0.5.12", K25_FP4, 384, 8, tp=8),
    row("sglang@0.5.13", K25_FP4, 385, 9, tp=8),
    row("sglang@0.5.20", M3_MXFP8, 128, 4, tp=8),
    row("sglang@0.5.14", V4_PRO, 384, 6, tp=8, env=ENFORCE),
    row("sglang@0.5.22", Q35_FP4, 512, 10, tp=4, env={**AITER, **ENFORCE}),
]
