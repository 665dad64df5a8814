"""Router weights on the input of experts: the function called, its arguments, refusals, and what check finds."""

from typing import Any

import pytest

from preshuffle.registry import NoRecipeError, Observation, Query, Registry, observation_of
from preshuffle.registry.values.decision import Decision

FP8 = "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8"
BF16 = "meta-llama/Llama-4-Scout-17B-16E-Instruct"
VLLM: dict[str, Any] = {"engine": "vllm@0.33.0", "env": {"VLLM_ROCM_USE_AITER": "1"}}
SGLANG: dict[str, Any] = {"engine": "sglang@0.5.23", "env": {"SGLANG_USE_AITER": "1"}}
BLOCK: dict[str, Any] = {"weight_dtype": "fp8", "quant_type": "per_1x128", "activation_dtype": "fp8"}


def requested(model: str = FP8, **more: Any) -> Query:
    return Query.parse({"model": model, "arch": "gfx950", "tp": 8, "aiter": "0.1.20"} | more)


def decided(query: Query) -> Decision:
    return Registry.default().resolve(query)


@pytest.mark.parametrize(
    ("query", "function", "in_stage1", "by_caller"),
    [
        (requested(**VLLM), "asm_moe_tkw1", True, False),
        (requested(BF16, **VLLM), "fused_moe", True, False),
        (requested(**SGLANG), "fused_moe", False, True),
        (requested(engine="atom"), "fused_moe", True, False),
        (requested(), "fused_moe", True, False),
        (requested("Qwen/Qwen3-30B-A3B", tp=4, **VLLM), "fused_moe", False, False),
        (requested("Qwen/Qwen3-30B-A3B", tp=4), "fused_moe", False, False),
    ],
)
def test_function_and_arguments(query: Query, function: str, in_stage1: bool, by_caller: bool) -> None:
    call = decided(query).call
    assert (call.function, call.doweight_stage1, call.weighted_by_caller) == (function, in_stage1, by_caller)


def test_the_reason_names_the_function() -> None:
    assert "asm_moe_tkw1 is called, which multiplies it in stage 1" in decided(requested(**VLLM)).reason
    assert "the engine multiplies the hidden states" in decided(requested(**SGLANG)).reason
    assert "router's weight" not in decided(requested("Qwen/Qwen3-30B-A3B", tp=4)).reason


def test_kernels_are_predicted_through_the_wrapper() -> None:
    kernels = {bucket.tokens: bucket for bucket in decided(requested(**VLLM)).kernels}
    assert kernels[64].run_1stage  # fmoe_g1u1_tkw1 is a kernel of the one-stage path
    elsewhere = {bucket.tokens: bucket for bucket in decided(requested(arch="gfx942", cu_num=304)).kernels}
    assert not elsewhere[64].run_1stage  # gfx942 has none


def test_an_engine_that_raises_is_refused() -> None:
    with pytest.raises(NoRecipeError, match="router weight on the input"):
        decided(requested(BF16, **VLLM, **BLOCK))
    assert decided(requested("Qwen/Qwen3-30B-A3B", tp=2, **VLLM, **BLOCK)).recipe == "vllm.fp8-block.sep16"


def test_an_engine_that_does_not_pass_it_is_found() -> None:
    query = requested(BF16, engine="atom")
    assert [finding.code for finding in decided(query).findings] == ["contract_mismatch"]
    assert not decided(requested("Qwen/Qwen3-30B-A3B", tp=4, engine="atom")).findings


ON_OUTPUT = {"function": None, "doweight_stage1": False, "router_weight": None}


@pytest.mark.parametrize(
    ("query", "applied", "wrong"),
    [
        (requested(**VLLM), {}, False),
        (requested(**VLLM), ON_OUTPUT, True),
        (requested(**VLLM), {**ON_OUTPUT, "router_weight": "input"}, False),
        (requested(**VLLM), {"router_weight": "output"}, True),
        (requested(), {"function": "asm_moe_tkw1", "doweight_stage1": None}, False),
        (requested(**SGLANG), {}, False),
        (requested(**SGLANG), ON_OUTPUT, False),  # its runner multiplies the hidden states
        (requested(**SGLANG), {"router_weight": "output"}, True),
        (requested("Qwen/Qwen3-30B-A3B", tp=4, **VLLM), {}, False),
        (requested("Qwen/Qwen3-30B-A3B", tp=4, **VLLM), {"doweight_stage1": True}, True),
        (requested("Qwen/Qwen3-30B-A3B", tp=4, **VLLM), {"function": None, "router_weight": "input"}, True),
    ],
)
def test_check(query: Query, applied: dict[str, Any], wrong: bool) -> None:
    observation = observation_of(decided(query), query)
    fields = observation.model_dump(mode="json", exclude_unset=True)
    fields["applied"] |= applied
    found = Registry.default().check(Observation.parse(fields)).findings
    assert {finding.code for finding in found} == ({"contract_mismatch"} if wrong else set()), found


def test_a_model_that_nobody_knows_is_not_judged() -> None:
    sizes = {"hidden_size": 4096, "intermediate_size": 2048, "num_experts": 64, "top_k": 1, "bias": False}
    kind = {"weight_dtype": "bf16", "quant_type": "No", "activation": "Silu", "activation_dtype": "bf16"}
    query = requested("acme/new", gate_up_order="GGUU", **sizes, **kind)
    fields = observation_of(decided(query), query).model_dump(mode="json", exclude_unset=True)
    fields["applied"] |= {"doweight_stage1": True}
    assert not Registry.default().check(Observation.parse(fields)).findings
    fields["query"] |= {"router_weight_on_input": False}
    assert Registry.default().check(Observation.parse(fields)).findings


def test_the_wrapper_takes_one_quantization() -> None:
    query = requested(BF16, **VLLM)
    fields = observation_of(decided(query), query).model_dump(mode="json", exclude_unset=True)
    fields["applied"] |= {"function": "asm_moe_tkw1"}
    found = Registry.default().check(Observation.parse(fields)).findings
    assert [finding.code for finding in found] == ["contract_mismatch"]


def test_a_configuration_says_so() -> None:
    config = {
        "model_type": "llama4_text",
        "hidden_size": 5120,
        "intermediate_size": 8192,
        "num_local_experts": 16,
        "num_experts_per_tok": 1,
        "hidden_act": "silu",
        "num_hidden_layers": 2,
        "torch_dtype": "bfloat16",
    }
    assert Registry.default().query_from_hf_config(config, arch="gfx950").router_weight_on_input is True
