"""Shared experts count in num_experts and top_k where the engine runs them as experts of the layer."""

from typing import Any

import pytest

from preshuffle.registry import Observation, Query, Registry
from preshuffle.registry.layer import SharedExperts, counted_fields, expert_slots, layer_of
from preshuffle.registry.resolve import call_of_decision
from support.book.configurations import PUBLISHED, QUARK_MXFP4
from support.book.strategies import BOOK, REGISTRY

DEEPSEEK = "deepseek-ai/DeepSeek-R1-0528"
VLLM = {"VLLM_ROCM_USE_AITER": "1", "VLLM_ROCM_USE_AITER_FUSION_SHARED_EXPERTS": "1"}


def counted(model: str = DEEPSEEK, **fields: Any) -> tuple[int | None, int | None]:
    full = layer_of(Query.parse({"model": model, "arch": "gfx950", **fields}), BOOK).query
    return full.num_experts, full.top_k


@pytest.mark.parametrize(
    ("engine", "env", "wanted"),
    [
        (None, {}, (256, 8)),
        ("atom", {}, (257, 9)),
        ("atom", {"ATOM_FUSE_SHARED_EXPERT": "0"}, (257, 9)),  # it is read with dp > 1 and mori alone
        ("atom", {"ATOM_FUSE_SHARED_EXPERT": "true"}, (257, 9)),
        ("vllm", {}, (256, 8)),
        ("vllm", VLLM, (257, 9)),
        ("vllm", {"VLLM_ROCM_USE_AITER_FUSION_SHARED_EXPERTS": "1"}, (256, 8)),
        ("vllm", {**VLLM, "VLLM_ROCM_USE_AITER_MOE": "0"}, (256, 8)),
        ("sglang", {}, (257, 9)),
        ("sglang", {"--disable-shared-experts-fusion": "1"}, (256, 8)),
        ("tgi", {}, (256, 8)),
    ],
)
def test_the_engines_switch_decides(engine: str | None, env: dict[str, str], wanted: tuple[int, int]) -> None:
    assert counted(engine=engine, env=env) == wanted


@pytest.mark.parametrize(
    ("model", "fused"),
    [
        ("Qwen/Qwen3-Next-80B-A3B-Instruct-FP8", (513, 11)),
        ("Qwen/Qwen3.5-397B-A17B-FP8", (513, 11)),
        ("zai-org/GLM-4.7-FP8", (161, 9)),
        ("zai-org/GLM-5-FP8", (257, 9)),
        ("amd/Kimi-K2-Thinking-MXFP4", (385, 9)),
        ("deepseek-ai/DeepSeek-V4-Pro", (384, 6)),  # its shared expert is fp8, the routed ones are fp4
        ("MiniMaxAI/MiniMax-M3-MXFP8", (129, 5)),
        ("MiniMaxAI/MiniMax-M2", (256, 8)),
        ("Qwen/Qwen3-235B-A22B", (128, 8)),
        ("moonshotai/Kimi-K2-Thinking", (384, 8)),
        ("moonshotai/Kimi-K3", (896, 16)),
        ("openai/gpt-oss-120b", (128, 4)),
    ],
)
def test_atom_counts_what_its_tuned_rows_count(model: str, fused: tuple[int, int]) -> None:
    assert counted(model, engine="atom") == fused


def test_sglang_counts_for_the_models_that_it_knows_it_for() -> None:
    assert counted("zai-org/GLM-5-FP8", engine="sglang") == (257, 9)
    assert counted("Qwen/Qwen3.5-397B-A17B-FP8", engine="sglang") == (512, 10)
    aiter = {"SGLANG_USE_AITER": "1"}
    assert counted("Qwen/Qwen3.5-397B-A17B-FP8", engine="sglang", env=aiter) == (513, 11)


@pytest.mark.parametrize("ep", [2, 8])
def test_every_expert_parallel_rank_has_its_own(ep: int) -> None:
    query = Query(model=DEEPSEEK, arch="gfx942", engine="atom", ep=ep)
    shape = REGISTRY.resolve(query).tensors["w13_weight"].logical_shape
    assert shape == (256 // ep + 1, 4096, 7168)


def test_what_a_query_counts_itself_is_not_counted_again() -> None:
    assert counted(engine="atom", num_experts=256, top_k=8) == (256, 8)
    assert counted(engine="atom", num_experts=257) == (257, 8)


def test_the_reason_says_it() -> None:
    query = Query(model=DEEPSEEK, arch="gfx942", engine="sglang", tp=8)
    decision = REGISTRY.resolve(query)
    assert "1 shared expert counts among the experts: SGLang fuses" in decision.reason
    off = REGISTRY.resolve(Query.parse({**dict(query), "env": {"--disable-shared-experts-fusion": "1"}}))
    assert "1 shared expert stays apart" in off.reason
    assert off.decision_digest != decision.decision_digest


def test_several_count_each() -> None:
    layer = layer_of(Query(model=DEEPSEEK, arch="gfx950", engine="atom", num_experts=64, top_k=6), BOOK)
    two = expert_slots(layer.query, SharedExperts(2), layer.switches, BOOK, given=False)
    assert counted_fields(layer.query, two) == {"num_experts": 66, "top_k": 8}
    assert two.reason.startswith("2 shared experts count among the experts")
    none = expert_slots(layer.query, SharedExperts(0), layer.switches, BOOK, given=False)
    assert counted_fields(layer.query, none) == {}
    assert none.reason == ""


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("deepseek-r1", (257, 9)),
        ("deepseek-r1-mxfp4", (257, 9)),
        ("glm-4.7", (161, 9)),
        ("minimax-m3", (129, 5)),
        ("qwen3-next", (513, 11)),
        ("qwen3.5", (513, 11)),
        ("qwen3.5-mxfp4", (512, 10)),  # its shared expert is bf16
        ("minimax-m2", (256, 8)),
        ("kimi-k2-thinking", (384, 8)),  # its shared expert is not quantized, the others are
        ("kimi-k2.5", (384, 8)),
        ("kimi-k3", (896, 16)),  # they run on the hidden size, the others on the latent
        ("deepseek-v4-flash", (256, 6)),  # its shared expert is fp8, the others are fp4
        ("deepseek-v4-flash-fp8", (257, 7)),
    ],
)
def test_a_configuration_says_whether_its_shared_experts_are_like_the_others(
    name: str, wanted: tuple[int, int]
) -> None:
    query = Registry.default().query_from_hf_config(PUBLISHED[name][0], arch="gfx950", engine="atom")
    assert (query.num_experts, query.top_k) == wanted
    assert counted(PUBLISHED[name][1], engine="atom") == wanted
    apart = Registry.default().query_from_hf_config(PUBLISHED[name][0], arch="gfx950", engine="vllm")
    assert apart.num_experts == BOOK.models[PUBLISHED[name][1]].num_experts


def test_a_shared_expert_of_another_size_stays_apart() -> None:
    config = {**PUBLISHED["qwen3-next"][0], "shared_expert_intermediate_size": 1024}
    assert Registry.default().query_from_hf_config(config, arch="gfx950", engine="atom").num_experts == 512


@pytest.mark.parametrize(
    ("engine", "env", "topk"),
    [
        (None, {}, 9),
        ("atom", {}, 10),  # the shared expert's column, and the masked one
        ("vllm", {}, 8),  # top-k columns, of which AITER strips one
        ("vllm", VLLM, 10),
        ("sglang", {}, 9),  # the shared expert's column, and none beside it
        ("sglang", {"--disable-shared-experts-fusion": "1"}, 8),
    ],
)
def test_the_columns_of_topk_ids_are_the_engines(engine: str | None, env: dict[str, str], topk: int) -> None:
    query = Query(model=DEEPSEEK, arch="gfx950", ep=4, engine=engine, env=env, aiter="0.1.20", tokens=(64,))
    layer = layer_of(query, BOOK)
    assert (layer.query.top_k or 0) + layer.masked_column == topk
    decision = Registry.default().resolve(query)
    call = call_of_decision(decision, query, BOOK, 64)
    assert call is not None
    assert (call.topk, call.ep) == (topk, True)


def test_nothing_is_masked_without_expert_parallelism() -> None:
    query = Query(model=DEEPSEEK, arch="gfx950", engine="atom")
    assert not layer_of(query, BOOK).masked_column


@pytest.mark.parametrize(
    ("model", "fields", "experts", "found"),
    [
        ("amd/Qwen3.5-397B-A17B-MXFP4", {"tp": 4, "ep": 1}, 512, False),
        ("amd/Qwen3.5-397B-A17B-MXFP4", {"tp": 4, "ep": 1}, 513, True),
        ("amd/Qwen3.5-397B-A17B-MXFP4", {"tp": 4}, 513, True),
        ("amd/Qwen3.5-397B-A17B-MXFP4", {"tp": 4}, 128, False),  # ep is unknown
        ("amd/Qwen3.5-397B-A17B-MXFP4", {"ep": 4}, 128, False),
        ("amd/Qwen3.5-397B-A17B-MXFP4", {"ep": 4}, 129, True),
        ("deepseek-ai/DeepSeek-R1-0528", {"ep": 1}, 256, False),
        ("deepseek-ai/DeepSeek-R1-0528", {"ep": 1}, 257, False),
        ("deepseek-ai/DeepSeek-R1-0528", {"ep": 8}, 33, False),
        ("deepseek-ai/DeepSeek-R1-0528", {"ep": 8}, 34, True),
        ("acme/unknown", {"ep": 1, "num_experts": 8}, 9, False),  # it may have a shared expert
    ],
)
def test_a_rank_holds_the_experts_that_its_layer_has(
    model: str, fields: dict[str, int], experts: int, found: bool
) -> None:
    shape = [experts, 64, 64]
    query = {"model": model, "arch": "gfx950", "engine": "atom", **fields}
    applied: dict[str, Any] = {"tensors": {"w13_weight": {"layout": "sep16", "logical_shape": shape}}}
    for eplb in (None, True):  # redundant experts make any number possible
        observation = Observation.parse({"query": query, "applied": {**applied, "eplb": eplb}})
        codes = {finding.code for finding in Registry.default().check(observation).findings}
        assert ("contract_mismatch" in codes) is (found and not eplb)


FP8 = {"dtype": "fp8_e4m3", "qscheme": "per_channel", "is_dynamic": False}
PTPC = {"weight": FP8, "input_tensors": {"dtype": "fp8_e4m3", "qscheme": "per_channel", "is_dynamic": True}}


@pytest.mark.parametrize(
    ("section", "experts"),
    [
        ({}, 513),
        ({"layer_quant_config": {"*shared_expert.*": PTPC}}, 512),  # of a section of its own
        ({"layer_quant_config": {"*mlp.experts*": PTPC}}, 512),  # the routed experts have one
        ({"layer_quant_config": {"*mlp.experts*": PTPC, "*shared_expert.*": PTPC}}, 513),
        ({"exclude": ["*shared_expert.*"]}, 512),
        ({"exclude": ["*shared_expert_gate"]}, 513),
    ],
)
def test_a_configuration_tells_how_shared_experts_are_quantized(section: dict[str, Any], experts: int) -> None:
    config = {**PUBLISHED["qwen3-next"][0], "quantization_config": {**QUARK_MXFP4, **section}}
    query = Registry.default().query_from_hf_config(config, arch="gfx950", engine="atom")
    assert query.num_experts == experts
