"""A decision tells what the deny-list and contracts on versions say, as ``check`` does for who follows it."""

from typing import Any

import pytest

from preshuffle.registry import NoRecipeError, Query
from preshuffle.registry.resolve.observation_of import observation_of
from support.book.strategies import REGISTRY

TOLD = ("known_bad", "version_unsupported", "pad_required")
CASES: dict[str, dict[str, Any]] = {
    "CK-Tile's stage 2": {"model": "amd/MiniMax-M3-MXFP4", "tp": 8, "engine": "vllm", "aiter": "0.1.20"},
    "FlyDSL's fp4 kernels": {"model": "openai/gpt-oss-120b", "tp": 2, "engine": "atom", "aiter": "0.1.15"},
    "scales that an old AITER does not pad": {"model": "deepseek-ai/DeepSeek-V4-Pro", "tp": 8, "aiter": "0.1.16"},
    "gfx1250 too early": {"model": "amd/GLM-5.2-MXFP4", "arch": "gfx1250", "engine": "sglang", "aiter": "0.1.16"},
    "SiTUv2 on an AITER before it, CUs unknown": {
        "model": "moonshotai/Kimi-K3", "arch": "gfx942", "tp": 8, "engine": "vllm", "aiter": "0.1.18",
        "env": {"--quantization-config.moe.weight": "int4_per_group_32"},
    },
    "one version of vLLM": {"model": "openai/gpt-oss-120b", "engine": "vllm@0.23.1"},
    "a code object by its tile": {
        "model": "MiniMaxAI/MiniMax-M2.5", "ep": 8, "aiter": "0.1.14", "tokens": [64, 16384],
    },
    "nothing listed": {"model": "openai/gpt-oss-120b", "tp": 8},
}  # fmt: skip


def told(findings: Any) -> set[tuple[str, str | None]]:
    return {(finding.code, finding.actual) for finding in findings if finding.code in TOLD}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_resolve_tells_what_check_would_tell(case: str) -> None:
    query = Query.parse({"arch": "gfx950", **CASES[case]})
    decision = REGISTRY.resolve(query)
    report = REGISTRY.check(observation_of(decision, query))
    assert told(decision.findings) == told(report.findings)
    assert bool(told(decision.findings)) is (case != "nothing listed")


def test_a_listed_kernel_names_its_token_counts_and_the_way_out() -> None:
    decision = REGISTRY.resolve(Query.parse({"arch": "gfx950", **CASES["CK-Tile's stage 2"]}))
    (finding,) = [finding for finding in decision.findings if finding.code == "known_bad"]
    assert finding.actual == "cktile.stage2.inter256"
    assert finding.message.endswith("it gives wrong results (cktile_moe_stage1 at 1 to 255 tokens)")
    assert finding.fix is not None
    assert finding.fix.startswith("pad the intermediate size to a multiple of 256")
    assert finding.evidence


def test_without_kernels_nothing_is_said_of_them() -> None:
    decision = REGISTRY.resolve(Query.parse({"arch": "gfx950", **CASES["CK-Tile's stage 2"]}), kernels=False)
    assert told(decision.findings) == set()


@pytest.mark.parametrize("engine", [None, "atom", "vllm"])  # SGLang cuts in whole blocks
@pytest.mark.parametrize(
    ("model", "size", "share"), [("MiniMaxAI/MiniMax-M2.5", 1536, 192), ("Qwen/Qwen3-30B-A3B-FP8", 768, 96)]
)
def test_blocks_that_ranks_cannot_share_are_refused_with_the_padded_size(
    engine: str | None, model: str, size: int, share: int
) -> None:
    """Twelve blocks of 128 for eight ranks: the answer names the dimension, tp, multiple, padded size and a way out."""
    with pytest.raises(NoRecipeError) as caught:
        REGISTRY.resolve(Query.parse({"model": model, "arch": "gfx950", "tp": 8, "engine": engine}))
    padded = -(-share // 128) * 128
    wanted = (
        f"needs intermediate_size at tp 8 in multiples of 128, found {share} (padded it is {padded}; it divides at tp "
    )
    assert wanted in caught.value.nearest[0].why_not
    own = "vLLM without --moe-backend refines the blocks" if engine == "vllm" else "lacks what its recipe requires"
    assert own in str(caught.value)
    assert all(
        size % int(tp) == 0 for tp in caught.value.nearest[0].why_not.split(" tp ")[-1].split(", and")[0].split(", ")
    )
