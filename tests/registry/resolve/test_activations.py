"""Activations by the words of models: what AITER computes, what it has no kernel for, and what nobody knows."""

from typing import Any

import pytest

from preshuffle.registry import NoRecipeError, Observation, Query, QueryError, Registry
from support.book.observations import A4W4, SEPARATED, deployment, report
from support.book.observations import BF16 as KIND
from support.book.observations import TILES as LAYOUTS

SIZES = {"hidden_size": 4096, "intermediate_size": 2048, "num_experts": 64, "top_k": 4, "bias": False}
BF16 = {"weight_dtype": "bf16", "quant_type": "No", "activation_dtype": "bf16", "gate_up_order": "GGUU"}
VLLM: dict[str, Any] = {"engine": "vllm@0.33.0", "env": {"VLLM_ROCM_USE_AITER": "1"}}


def requested(activation: str, **more: Any) -> Query:
    return Query.parse({"model": "acme/new", "arch": "gfx950", "activation": activation} | SIZES | BF16 | more)


@pytest.mark.parametrize(
    ("word", "activation"),
    [
        ("silu", "Silu"),
        ("Silu", "Silu"),
        ("swish", "Silu"),
        ("gelu", "Gelu"),
        ("geglu", "Gelu"),
        ("gelu_pytorch_tanh", "GeluTanh"),
        ("relu2_no_mul", "Relu2"),
        ("squared_relu", "Relu2"),
        ("swigluoai", "Swiglu"),
        ("situ", "Situv2"),
    ],
)
def test_words_of_configurations_and_engines(word: str, activation: str) -> None:
    assert requested(word).activation == activation


def test_a_word_that_nobody_knows_gets_the_nearest() -> None:
    with pytest.raises(QueryError, match=r"'relu3' is not one of the valid values \(did you mean Relu2?\?\)"):
        requested("relu3")


@pytest.mark.parametrize("engine", [{}, VLLM, {"engine": "atom"}])
@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("relu2", "no fused MoE for ReLU or squared ReLU"),
        ("relu", "no fused MoE for ReLU or squared ReLU"),
        ("gelu_pytorch_tanh", "no fused MoE for GELU by its tanh formula"),
        ("swiglustep", "no fused MoE for SwiGLU with both halves clamped"),
    ],
)
def test_no_kernel_is_refused_with_the_reason(word: str, text: str, engine: dict[str, Any]) -> None:
    with pytest.raises(NoRecipeError, match=text) as caught:
        Registry.default().resolve(requested(word, **engine))
    assert "Triton on plain bytes" in str(caught.value)
    explained = Registry.default().explain(requested(word, **engine))
    assert "chosen" not in {rule.outcome for rule in explained.rules}


def test_an_exception_of_a_refusal_counts() -> None:
    """SGLang passes AITER's GELU for the tanh formula."""
    with pytest.raises(NoRecipeError, match="needs activation=Silu or Gelu, found GeluTanh") as caught:
        Registry.default().resolve(requested("gelu_pytorch_tanh", engine="sglang"))
    assert "no fused MoE for GELU by its tanh formula" not in str(caught.value)


@pytest.mark.parametrize("word", ["silu", "gelu"])
@pytest.mark.parametrize("engine", [{}, VLLM])
def test_what_has_kernels_is_answered(word: str, engine: dict[str, Any]) -> None:
    assert Registry.default().resolve(requested(word, **engine)).call.activation == word.capitalize()


@pytest.mark.parametrize("gated", [True, False])
def test_a_model_with_squared_relu_names_the_activation_first(gated: bool) -> None:
    with pytest.raises(NoRecipeError, match="squared ReLU"):
        Registry.default().resolve(requested("relu2", gated=gated))


def test_a_configuration_passes_its_activation_through() -> None:
    config = {
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 2,
        "hidden_act": "relu2",
        "torch_dtype": "bfloat16",
    }
    query = Registry.default().query_from_hf_config(config, arch="gfx950")
    assert query.activation == "Relu2"
    with pytest.raises(NoRecipeError, match="squared ReLU"):
        Registry.default().resolve(query)


PLAIN = {
    "w13_weight": {"layout": "plain", "is_shuffled": False},
    "w2_weight": {"layout": "plain", "is_shuffled": False},
}
TILES = {"w13_weight": {"layout": "sep16", "is_shuffled": True}, "w2_weight": {"layout": "sep16", "is_shuffled": True}}


@pytest.mark.parametrize(
    ("word", "more", "kernels", "tensors", "found"),
    [
        ("relu2", {}, [{"backend": "aiter"}], TILES, {"unsupported"}),
        ("relu2", {}, [{"backend": "triton"}], PLAIN, set()),
        ("relu2", {"gated": False}, [{"backend": "triton"}], PLAIN, set()),
        ("gelu_pytorch_tanh", VLLM, [{"backend": "aiter"}], TILES, {"unsupported"}),
        ("gelu_pytorch_tanh", {"engine": "sglang@0.5.23"}, [{"backend": "aiter"}], TILES, set()),
        ("silu", {}, [{"backend": "aiter"}], TILES, set()),
    ],
)
def test_check(word: str, more: dict[str, Any], kernels: list[Any], tensors: dict[str, Any], found: set[str]) -> None:
    query = requested(word, **more).model_dump(mode="json", exclude_unset=True)
    observation = Observation.parse({"query": query, "applied": {"kernels": kernels, "tensors": tensors}})
    assert {finding.code for finding in Registry.default().check(observation).findings} == found


@pytest.mark.parametrize(("word", "found"), [("gelu", ["flydsl.gelu"]), ("silu", [])])
def test_gelu_on_mxfp4_becomes_silu(word: str, found: list[str]) -> None:
    raw = deployment(A4W4, SEPARATED, applied={"gate_mode": "separated"})
    raw["query"]["activation"] = word
    findings = report(raw).findings
    assert [finding.actual for finding in findings if finding.code == "known_bad"] == found


def test_gelu_in_bf16_is_right() -> None:
    raw = deployment(KIND, LAYOUTS)
    raw["query"]["activation"] = "gelu"
    assert not report(raw).findings
