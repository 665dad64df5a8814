"""Shapes, pads and calls that recipes can ask for, by quantization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preshuffle.registry import Decision, LayoutError, Query, QueryError, Registry
from preshuffle.registry.entries.recipe import PadStep, multiple_for
from support.book.strategies import LAYOUTS, load_overlay
from support.tensors import recipe_steps as steps

UNQUANTIZED = """recipes:
  mine:
    tensors:
      w13_weight: {layout: sep16, pad: {rows: [{upto: 192, to: 64}, {to: 128}]}, dtype: bf16, order: GGUU}
      w2_weight: {layout: sep16, pad: {k: [{upto: 192, to: 64}, {to: 128}]}, dtype: bf16}
    call: CALL
    requires: REQUIRES
    validity: no longer than it lasts
    evidence: [x]
rules:
  mine:
    when: {model: mine/model, deployment: mine, producer: mine, top_k: 2, num_experts: 8}
    use: mine
    priority: 1000
    because: a test
    evidence: [x]
"""
CALL = '{gate_mode: separated, quant_type: "No"}'


def decide(folder: Path, call: str = CALL, requires: str = "{}", **fields: Any) -> Decision:
    registry: Registry = load_overlay(folder, UNQUANTIZED.replace("CALL", call).replace("REQUIRES", requires))
    query = {
        "model": "mine/model", "arch": "gfx950", "weight_dtype": "bf16", "quant_type": "No", "activation": "Silu",
        "activation_dtype": "bf16", "gate_up_order": "GGUU", "hidden_size": 1024, "intermediate_size": 768,
        "num_experts": 8, "top_k": 2, "bias": False, "deployment": "mine", "producer": "mine", "tokens": [1],
    }  # fmt: skip
    return registry.resolve(Query.parse({**query, **fields}))


@pytest.mark.parametrize(
    ("tp", "rank", "padded"), [(1, 768, 768), (4, 192, 192), (2, 384, 384), (3, 256, 256), (6, 128, 128)]
)
def test_padding_by_size_leaves_what_divides(tmp_path: Path, tp: int, rank: int, padded: int) -> None:
    tensors = decide(tmp_path, tp=tp).tensors
    assert tensors["w13_weight"].logical_shape == (8, 2 * rank, 1024)
    assert tensors["w13_weight"].physical_shape == (8, 2 * padded, 1024)


@pytest.mark.parametrize(("size", "padded"), [(32, 64), (160, 192), (192, 192), (224, 256), (320, 384)])
def test_padding_by_size_pads_to_the_step_that_takes_it(tmp_path: Path, size: int, padded: int) -> None:
    tensors = decide(tmp_path, intermediate_size=size).tensors
    assert tensors["w2_weight"].physical_shape == (8, 1024, padded)
    assert tensors["w2_weight"].pad.k == tensors["w13_weight"].pad.rows == padded - size


@given(st.integers(1, 4096))
def test_the_first_step_that_takes_a_size_decides(size: int) -> None:
    rule = (PadStep(upto=192, to=64), PadStep(upto=1000, to=128))
    assert multiple_for(rule, size) == (64 if size <= 192 else 128 if size <= 1000 else 1)
    assert multiple_for(7, size) == 7


@pytest.mark.parametrize(
    ("name", "role", "logical", "physical"),
    [
        ("block", "w13_weight_scale", (3, 2, 2), (3, 2, 2)),
        ("block", "w2_weight_scale", (3, 2, 1), (3, 2, 1)),
        ("token", "w13_weight_scale", (3, 256, 1), (3, 256, 1)),
        ("tensor", "w13_weight_scale", (3,), (3,)),
        ("tensor", "w13_input_scale", (1,), (1,)),
        ("mxfp8", "w13_weight_scale", (3, 256, 8), (3, 256, 8)),
        ("mxfp8", "w2_weight_scale", (3, 256, 4), (768, 8)),
        ("int4", "w13_weight", (3, 256, 256), (3, 256, 256)),
        ("int4", "w13_weight_scale", (3, 256, 8), (3, 256, 8)),
    ],
)
def test_scales_have_the_shape_of_their_quantization(
    name: str, role: str, logical: tuple[int, ...], physical: tuple[int, ...]
) -> None:
    tensor = steps.decide(name).tensors[role]  # type: ignore[index]
    assert (tensor.logical_shape, tensor.physical_shape) == (logical, physical)


def test_a_tail_is_padded_after_the_pads_and_only_where_it_must() -> None:
    for experts, flat in ((3, (1024, 8)), (8, (8, 320, 8))):
        decision = steps.decide("mxfp4", "gfx950", num_experts=experts, intermediate_size=160, bias=False)
        assert decision.tensors["w13_weight_scale"].physical_shape == flat
        assert decision.tensors["w13_weight_scale"].pad.rows == 0


def test_blocks_of_alternating_rows_are_refused() -> None:
    with pytest.raises(QueryError, match="a scale block of 128 rows would hold rows of gate and up"):
        steps.decide("block", gate_up_order="GUGU")


@pytest.mark.parametrize(("arch", "found"), [("gfx942", ("fnuz", "reduce_max")), ("gfx950", ("reduce_max",))])
def test_a_decision_names_the_steps_that_do_something(arch: str, found: tuple[str, ...]) -> None:
    assert steps.decide("tensor", arch).tensors["w2_input_scale"].steps == found


def test_steps_and_calls_are_in_the_digest(tmp_path: Path) -> None:
    more = (
        "function: moe_gemm_a16w4, backend: triton",
        "bias: dropped",
        "gate_mode_passed: false",
        "quant_dtype_a: fp8",
    )
    calls = (CALL, *(CALL.replace("}", f", {words}}}") for words in more))
    digests = [decide(tmp_path, call).decision_digest for call in calls]
    assert len(set(digests)) == len(digests) - 1  # the model has no bias, so dropping it changes nothing
    assert steps.decide("token").decision_digest != steps.decide("token", "gfx950").decision_digest


def test_pads_and_limits_that_are_not_passed_are_not_in_the_call(tmp_path: Path) -> None:
    call = CALL.replace("}", ", intermediate_pad: {passed: false}, swiglu_limit: absent, activation: Gelu}")
    fields: dict[str, Any] = {"intermediate_size": 160, "swiglu_limit": 7.0}
    passed, absent = decide(tmp_path, **fields).call, decide(tmp_path, call, **fields).call
    assert (passed.intermediate_pad, passed.swiglu_limit, passed.activation) == (32, 7.0, "Silu")
    assert (absent.intermediate_pad, absent.swiglu_limit, absent.activation) == (0, None, "Gelu")


def test_no_kernel_is_made_up_for_other_functions(tmp_path: Path) -> None:
    other = decide(tmp_path, CALL.replace("}", ", function: moe_gemm_a16w4, backend: triton}"))
    assert decide(tmp_path).kernels
    assert other.kernels == ()
    assert (other.call.function, other.call.backend) == ("moe_gemm_a16w4", "triton")


def test_biases_that_are_dropped_are_a_finding(tmp_path: Path) -> None:
    call = CALL.replace("}", ", bias: dropped}")
    assert decide(tmp_path, call).findings == decide(tmp_path).findings
    found = decide(tmp_path, call, bias=True)
    assert found.call.bias is False
    assert [finding.code for finding in found.findings if finding.role == "w13_bias"] == ["contract_mismatch"]


@pytest.mark.parametrize(
    ("requires", "fields", "why"),
    [
        ("{multiples: {hidden_size: 256}}", {"hidden_size": 960}, "found 960 (padded it is 1024)"),
        (
            "{multiples: {intermediate_size: 128}}",
            {"tp": 4},
            "intermediate_size at tp 4 in multiples of 128, found 192",
        ),
        ("{multiples: {intermediate_size: 128}}", {"tp": 5}, "found 154 (padded it is 256; it divides at tp 1, 2, 3"),
    ],
)
def test_a_recipe_for_sizes_that_divide(tmp_path: Path, requires: str, fields: dict[str, int], why: str) -> None:
    assert decide(tmp_path, CALL, requires).recipe == "mine"
    other = decide(tmp_path, CALL, requires, **fields)
    (told,) = [alternative.why_not for alternative in other.alternatives if alternative.recipe == "mine"]
    assert why in told
    assert "no longer than it lasts" in told


def test_alternating_rows_lie_where_interleaving_them_would_put_them() -> None:
    """A layout on rows that alternate is the layout on rows that were interleaved before: each layout, each byte."""
    tried = 0
    for layout in LAYOUTS.values():
        rows, k = 4 * layout.pattern.row_tile, layout.k_multiple
        try:
            bound = layout.bind(2, rows, k)
            turned = bound.alternating()
        except LayoutError:
            continue
        tried += 1
        plain = np.arange(2 * rows * k).reshape(2, rows, k)
        source = np.array([turned.permutation.source(address) for address in range(plain.size)])
        before = np.array([bound.permutation.source(address) for address in range(plain.size)])
        apart = plain.reshape(2, 2, rows // 2, k)
        interleaved = np.stack([apart[:, 0], apart[:, 1]], axis=2).reshape(-1)
        assert (source == interleaved[before]).all(), layout.id
    assert tried >= 8
    assert LAYOUTS["plain"].bind(1, 32, 4).alternating().permutation == LAYOUTS["gurow"].bind(1, 32, 4).permutation
    assert LAYOUTS["sep16"].bind(1, 32, 32).alternating().permutation == LAYOUTS["gurow16"].bind(1, 32, 32).permutation
    with pytest.raises(LayoutError, match="do not hold pairs"):
        LAYOUTS["plain"].bind(1, 31, 4).alternating()
