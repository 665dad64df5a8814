"""Observed sizes and dtypes that contradict the query are told; padded and packed ones are not."""

from __future__ import annotations

from typing import Any

import pytest

from preshuffle.registry import Observation
from support.book.strategies import REGISTRY

QUERY = {"model": "deepseek-ai/DeepSeek-V3", "arch": "MI300X", "tp": 8, "ep": 1, "aiter": "0.1.20"}


def weights(*, experts: int = 256, hidden: int = 7168, inter: int = 256, dtype: str = "fp8_e4m3fnuz") -> dict[str, Any]:
    shapes = {"w13_weight": [experts, 2 * inter, hidden], "w2_weight": [experts, hidden, inter]}
    return {
        role: {"layout": "sep16", "is_shuffled": True, "dtype": dtype, "logical_shape": shape, "physical_shape": shape}
        for role, shape in shapes.items()
    }


def found(tensors: dict[str, Any], **query: Any) -> list[tuple[str, str | None]]:
    report = REGISTRY.check(Observation.parse({"query": QUERY | query, "applied": {"tensors": tensors}}))
    return [(finding.code, finding.role) for finding in report.findings]


@pytest.mark.parametrize("sizes", [{}, {"experts": 257}, {"inter": 2048}, {"hidden": 7168 // 2}])
def test_sizes_of_the_layer_are_silent(sizes: dict[str, Any]) -> None:
    assert not found(weights(**sizes))


@pytest.mark.parametrize(
    ("sizes", "role"),
    [({"hidden": 4096}, "w13_weight"), ({"hidden": 7680}, "w13_weight"), ({"inter": 4096}, "w2_weight")],
)
def test_sizes_of_another_layer_are_told(sizes: dict[str, Any], role: str) -> None:
    assert found(weights(**sizes), hidden_size=7168, intermediate_size=2048) == [("contract_mismatch", role)]
    assert not found(weights(**sizes))  # a smaller copy under the model's name


def test_both_weights_hold_the_same_experts() -> None:
    mixed = {"w13_weight": weights()["w13_weight"], "w2_weight": weights(experts=257)["w2_weight"]}
    assert found(mixed) == [("contract_mismatch", "w2_weight")]


def test_sizes_are_not_concluded_from_a_model_that_is_not_known() -> None:
    assert not found(weights(hidden=4096, inter=4096), model="acme/own", weight_dtype="fp8", quant_type="per_1x128")
    stated = found(weights(hidden=4096), model="acme/own", hidden_size=7168)
    assert stated == [("contract_mismatch", "w13_weight")]


def test_weights_of_another_dtype_than_stated_are_told() -> None:
    assert ("numerics_deviation", None) in found(weights(dtype="fp4x2"), weight_dtype="fp8")
    assert not found(weights(), weight_dtype="fp8")
