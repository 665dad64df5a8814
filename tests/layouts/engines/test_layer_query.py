"""Queries of live layers, read by the book's attribute names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from preshuffle.layouts import query_of_layer
from preshuffle.registry import LayoutError, QueryError, Registry
from support.tensors.live_layers import atom_layer, named, sglang_layer, vllm_layer

MODEL = "openai/gpt-oss-120b"
SIZES = {"hidden_size": 160, "intermediate_size": 480}


class QuarkMoEMethod:
    """A base class of vLLM's."""


def weights(experts: int = 4, **dtypes: torch.dtype) -> dict[str, torch.Tensor]:
    return {
        "w13_weight": torch.zeros(experts, 480, 80, dtype=dtypes.get("dtype", torch.uint8)),
        "w2_weight": torch.zeros(experts, 160, 120, dtype=dtypes.get("dtype", torch.uint8)),
    }


def vllm(method: Any, **options: Any) -> Any:
    config = {"hidden_dim_unpadded": 160, "hidden_dim": 256, "intermediate_size": 480, "experts_per_token": 2}
    activation = named("MoEActivation", value="silu", name="SILU")
    return vllm_layer(weights(), method, **{"activation": activation, **config, **options})


def read(layer: Any, engine: str, **fields: Any) -> dict[str, Any]:
    found = query_of_layer(layer, engine=engine, model=MODEL, arch="gfx950", **fields)
    return found.query.model_dump(exclude_unset=True)


def test_vllm_says_sizes_ranks_and_experts() -> None:
    layer = vllm(named("GptOssMxfp4MoEMethod"), tp=2, tp_rank=1, ep=2, has_bias=True, swiglu_limit=7.0)
    found = query_of_layer(layer, engine="vllm@0.33.0", model=MODEL, arch="gfx950")
    stated = found.query.model_dump(exclude_unset=True)
    assert {name: stated[name] for name in SIZES} == SIZES
    assert (stated["tp"], stated["ep"], found.tp_rank, found.ep_rank) == (2, 2, 1, 0)
    assert (stated["num_experts"], stated["top_k"], stated["bias"]) == (8, 2, True), "four experts a rank"
    assert (stated["weight_dtype"], stated["quant_type"], stated["activation"]) == ("fp4x2", "per_1x32", "Silu")
    assert (found.function, found.entry, str(found.query.engine)) == ("vllm.fused_moe", "vllm.experts", "vllm@0.33.0")
    assert "env" not in stated, "auto is no choice"


def test_options_that_a_layer_keeps_are_switches() -> None:
    assert read(vllm(named("Mxfp4MoEMethod"), moe_backend="aiter"), "vllm")["env"] == {"--moe-backend": "aiter"}
    layer = sglang_layer(
        weights(), named("Mxfp4MoEMethod"), {}, hidden_size=160, intermediate_size_per_partition=480, top_k=2
    )
    config = SimpleNamespace(moe_runner_backend="aiter", moe_a2a_backend="none")
    assert read(layer, "sglang", config=config)["env"]["--moe-runner-backend"] == "aiter"


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (named("UnquantizedFusedMoEMethod"), {"quant_type": "No", "weight_dtype": "bf16"}),
        (named("Fp8MoEMethod", block_quant=True), {"quant_type": "per_1x128", "weight_dtype": "fp8"}),
        (
            named("Fp8MoEMethod", block_quant=False, quant_config=SimpleNamespace(activation_scheme="static")),
            {"quant_type": "per_Tensor", "activation_scales": "static"},
        ),
        (
            named("QuarkOCP_MX_MoEMethod", QuarkMoEMethod, weight_dtype="mxfp4"),
            {"quant_type": "per_1x32", "weight_dtype": "fp4x2", "producer": "quark"},
        ),
        (
            named(
                "CompressedTensorsW8A8Fp8MoEMethod",
                block_quant=False,
                weight_quant=SimpleNamespace(strategy=named("QuantizationStrategy", value="channel")),
                static_input_scales=False,
            ),
            {"quant_type": "per_Token", "activation_scales": "dynamic"},
        ),
        (
            named("FusedMoEModularMethod", old_quant_method=named("Mxfp4MoEMethod")),
            {"quant_type": "per_1x32", "weight_dtype": "fp4x2"},
        ),
        (named("SomethingNew"), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_quantization_method_says_dtype_and_type(method: Any, expected: dict[str, Any]) -> None:
    stated = read(vllm(method), "vllm")
    names = ("quant_type", "weight_dtype", "producer", "activation_scales")
    assert {name: stated.get(name) for name in expected} == expected
    if not expected:
        assert not set(names) & set(stated), "what it does not say is the model's"


def test_sglang_and_atom_keep_sizes_of_one_rank() -> None:
    per_rank = {"hidden_size": 160, "intermediate_size_per_partition": 240, "top_k": 2}
    stated = read(sglang_layer(weights(), named("Mxfp4MoEMethod"), {}, tp=2, tp_rank=1, **per_rank), "sglang@0.5.23")
    assert (stated["intermediate_size"], stated["activation"]) == (480, "Swiglu"), "its MXFP4 path passes swiglu"
    layer = atom_layer(
        weights(),
        named("Mxfp4MoEMethod", quant_config=SimpleNamespace(quant_method="quark")),
        tp=2,
        activation=SimpleNamespace(name="Swiglu", value=2),
        **per_rank,
    )
    found = query_of_layer(layer, engine="atom", model=MODEL, arch="gfx950")
    assert (found.query.intermediate_size, found.query.activation, found.query.producer) == (480, "Swiglu", "quark")
    assert found.function == "aiter.fused_moe", "this method calls AITER itself"


def test_fused_shared_experts_count() -> None:
    layer = atom_layer(
        weights(experts=5),
        named("Fp8MoEMethod", quant_type=SimpleNamespace(name="per_1x128", value=4)),
        hidden_size=160,
        intermediate_size_per_partition=480,
        top_k=2,
        num_fused_shared_experts=1,
        activation=SimpleNamespace(name="Silu", value=0),
    )
    stated = read(layer, "atom")
    assert (stated["num_experts"], stated["top_k"], stated["quant_type"]) == (5, 3, "per_1x128")


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (torch.tensor([0, 0, 1, 1, 0]), {"expert_map": "mask", "mask_size": 5, "mask_ones": (2,)}),
        (None, {"expert_map": "index"}),
    ],
)
def test_expert_maps_are_read_where_the_engine_has_them(mask: torch.Tensor | None, expected: dict[str, Any]) -> None:
    layer = vllm(named("Mxfp4MoEMethod"), ep=2)
    layer.expert_map_manager.expert_map = torch.tensor([-1, -1, 0, 1])
    layer.expert_map_manager.expert_mask = mask
    assert query_of_layer(layer, engine="vllm", model=MODEL, arch="gfx950").expert_map == expected


def test_the_model_comes_from_the_engines_configuration() -> None:
    layer = vllm(named("Mxfp4MoEMethod"))
    config = SimpleNamespace(model_config=SimpleNamespace(model="openai/gpt-oss-20b"))
    assert query_of_layer(layer, engine="vllm", config=config, arch="gfx950").query.model == "openai/gpt-oss-20b"
    with pytest.raises(QueryError, match="neither model= nor the engine's configuration names the model"):
        query_of_layer(layer, engine="vllm", arch="gfx950")


def test_a_model_that_nobody_knows_is_read_from_the_engines_config_json() -> None:
    hf_config = {
        "model_type": "gpt_oss",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 1,
        "hidden_size": 160,
        "intermediate_size": 480,
        "quantization_config": {"quant_method": "mxfp4"},
    }
    config = SimpleNamespace(
        model_config=SimpleNamespace(model="acme/tuned", hf_config=SimpleNamespace(to_dict=lambda: hf_config))
    )
    found = query_of_layer(vllm(named("Mxfp4MoEMethod"), has_bias=True), engine="vllm", config=config, arch="gfx950")
    assert (found.query.model, found.query.gate_up_order) == ("acme/tuned", "GUGU")


def test_another_layer_of_the_engine_is_refused() -> None:
    layer = named("ColumnParallelLinear", torch.nn.Module)
    with pytest.raises(LayoutError, match="no ColumnParallelLinear among the layers of vllm; valid: RoutedExperts"):
        query_of_layer(layer, engine="vllm", model=MODEL, arch="gfx950")


def test_an_attribute_that_cannot_be_read_says_nothing() -> None:
    class FusedMoE(torch.nn.Module):
        top_k = 2

        @property
        def hidden_size(self) -> int:
            raise RuntimeError("not initialised")

    assert "hidden_size" not in read(FusedMoE(), "atom")


def test_every_path_of_the_book_names_a_field_of_the_query() -> None:
    entries = Registry.default().book.entries["engine_layers"].values()
    assert {entry.engine for entry in entries} == {"vllm", "sglang", "atom"}
    for entry in entries:
        assert {"hidden_size", "intermediate_size", "top_k", "tp", "ep", "activation"} <= set(entry.fields)
