"""Ids that people run: each is its own model, and no dense sibling or other quantization is taken for it."""

import pytest

from preshuffle.registry import NoRecipeError, Query
from support.book.strategies import BOOK, REGISTRY

KNOWN = {
    "Qwen/Qwen3.6-35B-A3B": (2048, 512, 256, 8, "bf16"),
    "Qwen/Qwen3.6-35B-A3B-FP8": (2048, 512, 256, 8, "fp8"),
    "Qwen/Qwen3.8-2.4T-A95B": (8192, 2048, 512, 10, "bf16"),
    "amd/Qwen3.8-2.4T-A95B-Quark-MXFP4": (8192, 2048, 512, 10, "fp4x2"),
    "Qwen/Qwen3.8-Flash-Next": (2560, 640, 512, 10, "bf16"),
    "Qwen/Qwen3-VL-235B-A22B-Thinking": (4096, 1536, 128, 8, "bf16"),
    "Qwen/Qwen3-VL-235B-A22B-Instruct-FP8": (4096, 1536, 128, 8, "fp8"),
    "amd/Qwen3-VL-235B-A22B-Instruct-MXFP4": (4096, 1536, 128, 8, "fp4x2"),
    "Qwen/Qwen3-VL-30B-A3B-Instruct": (2048, 768, 128, 8, "bf16"),
    "Qwen/Qwen3-Omni-30B-A3B-Instruct": (2048, 768, 128, 8, "bf16"),
    "zai-org/GLM-5.3": (6144, 2048, 256, 8, "fp8"),
    "zai-org/GLM-5.3-Flash": (4096, 2048, 288, 8, "fp8"),
    "zai-org/GLM-5.3-Flash-FP8": (4096, 2048, 288, 8, "fp8"),
    "zai-org/GLM-5.3-Flash-BF16": (4096, 2048, 288, 8, "bf16"),
    "zai-org/GLM-4.7-Flash": (2048, 1536, 64, 4, "bf16"),
    "deepseek-ai/DeepSeek-V4.1-Flash": (5120, 2304, 384, 6, "fp4x2"),
    "inclusionAI/Ling-3.0-flash-fp8": (2560, 768, 512, 8, "fp8"),
    "inclusionAI/Ling-3.0-flash-fp4": (2560, 768, 512, 8, "fp4x2"),
    "amd/GLM-5.3-MXFP4-AttnFP8": (6144, 2048, 256, 8, "fp4x2"),
    "amd/Kimi-K2.5-MXFP4-AttnFP8": (7168, 2048, 384, 8, "fp4x2"),
    "amd/Qwen3.5-397B-A17B-MXFP4-AttnFP8-V2": (4096, 1024, 512, 10, "fp4x2"),
    "amd/DeepSeek-V4-Pro-MXFP4": (7168, 3072, 384, 6, "fp4x2"),
    "amd/DeepSeek-R1-MXFP4-Preview": (7168, 2048, 256, 8, "fp4x2"),
    "deepseek-ai/DeepSeek-V2-Lite": (2048, 1408, 64, 6, "bf16"),
    "inclusionAI/Ling-3.0-flash": (2560, 768, 512, 8, "bf16"),
    "tencent/Hy3": (4096, 1536, 192, 8, "bf16"),
    "tencent/Hy3-FP8": (4096, 1536, 192, 8, "fp8"),
    "stepfun-ai/Step-3.5-Flash-FP8": (4096, 1280, 288, 8, "fp8"),
    "XiaomiMiMo/MiMo-V2.5": (4096, 2048, 256, 8, "fp8"),
    "XiaomiMiMo/MiMo-V2.5-Pro-FP4-DFlash": (6144, 2048, 384, 8, "fp4x2"),
    "amd/grok-1-W4A8KV8": (6144, 32768, 8, 2, "i4x2"),
    "amd/Llama-4-Maverick-17B-128E-Instruct-MXFP4": (5120, 8192, 128, 1, "fp4x2"),
    "moonshotai/Kimi-Linear-48B-A3B-Instruct": (2304, 1024, 256, 8, "bf16"),
    "google/gemma-4-26B-A4B": (2816, 704, 128, 8, "bf16"),
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": (2688, 1856, 128, 6, "bf16"),
}
UNKNOWN = [
    "inclusionAI/Ling-3.0-flash-int4",
    "RedHatAI/GLM-5.3-MXFP4",
    "olka-fi/MiniMax-M2.7-MXFP4",
    "/data/models/MiniMax-M2.7-MXFP4",
    "Qwen/Qwen3-32B",
    "Qwen/Qwen3.6-27B",
    "Qwen/Qwen3.8-27B",
    "Qwen/Qwen3.8-27B-FP8",
    "Qwen/Qwen3-VL-8B-Instruct",
    "Qwen/Qwen3-VL-32B-Instruct-FP8",
    "Qwen/Qwen3.6-35B-A3B-AWQ",
    "Qwen/Qwen3-VL-235B-A22B-Instruct-AWQ",
    "nvidia/Qwen3.8-2.4T-A95B-NVFP4",
    "zai-org/GLM-4.6V-Flash",
    "zai-org/GLM-5.3-NVFP4",
    "acme/GLM-5.3-Flash-MXFP4",
    "nvidia/DeepSeek-V4-Pro-NVFP4",
    "deepseek-ai/DeepSeek-V4.1-Flash-NVFP4",
    "tencent/Hy3-NVFP4",
    "stepfun-ai/Step-3.5-Flash-Int4",
    "stepfun-ai/Step-3.7-Flash",
    "inclusionAI/Ling-3.0-tiny",
    "XiaomiMiMo/MiMo-V2.5-Pro-FP4",
    "xai-org/grok-1",
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct-AWQ",
    "moonshotai/Kimi-Linear-48B-A3B-Instruct-FP8",
    "deepseek-ai/deepseek-vl2",
    "google/gemma-4-12B-it",
    "google/gemma-4-31B-it",
    "nvidia/Gemma-4-26B-A4B-NVFP4",
]


@pytest.mark.parametrize("name", KNOWN)
def test_an_id_is_its_own_model(name: str) -> None:
    entry = BOOK.model_names.find(name)
    assert entry is not None
    sizes = (entry.hidden_size, entry.intermediate_size, entry.num_experts, entry.top_k)
    assert (*sizes, entry.weight_dtype) == KNOWN[name]
    assert BOOK.model_names.find(f"/data/models/{name.split('/')[1]}/") is entry, "a local copy is the same model"


def test_a_name_that_several_quantizers_use_is_known_with_its_owner_only() -> None:
    assert BOOK.model_names.find("amd/MiniMax-M2.7-MXFP4") is BOOK.models["amd/MiniMax-M2.5-MXFP4"]


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_dense_sibling_or_another_quantization_is_not_known(name: str) -> None:
    assert BOOK.model_names.find(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("google/gemma-4-26B-A4B-it", "GELU by its tanh formula"),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "squared ReLU"),
    ],
)
def test_what_has_no_kernel_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(NoRecipeError, match=reason):
        REGISTRY.resolve(Query(model=name, arch="gfx950"))
