"""What the arguments of a call say, and what they do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from preshuffle.layouts import apply, observed_call
from preshuffle.registry import LayoutError
from support.tensors.moe import decide, plain_tensors

DECISION = decide("fp4x2")
ROLES = {
    "w1": "w13_weight",
    "w2": "w2_weight",
    "w1_scale": "w13_weight_scale",
    "w2_scale": "w2_weight_scale",
    "bias1": "w13_bias",
    "bias2": "w2_bias",
}


def arguments(**other: Any) -> dict[str, Any]:
    tensors = plain_tensors(DECISION)
    apply(tensors, DECISION)
    return {**{name: tensors[role] for name, role in ROLES.items()}, **DECISION.call.kwargs(), **other}


def test_the_call_of_a_followed_decision_is_seen_whole() -> None:
    seen = observed_call(arguments())
    assert (seen.function, seen.gate_mode, seen.hidden_pad, seen.intermediate_pad) == ("fused_moe", "separated", 96, 32)
    assert (seen.swiglu_limit, seen.bias_passed, seen.doweight_stage1) == (7.0, True, False)
    assert seen.query_fields == {"activation": "Swiglu", "quant_type": "per_1x32"}
    assert (seen.unread, seen.local_experts) == ((), (4,))
    assert {role: tensor.layout for role, tensor in seen.tensors.items()} == {
        role: DECISION.tensors[role].layout for role in DECISION.tensors
    }


def test_what_nobody_passed_is_unknown() -> None:
    seen = observed_call({"w1": torch.zeros(2, 64, 64, dtype=torch.bfloat16)})
    for name in ("gate_mode", "hidden_pad", "swiglu_limit", "bias_passed", "expert_map", "doweight_stage1"):
        assert getattr(seen, name) is None
    assert seen.query_fields == {}
    assert seen.tensors["w13_weight"].layout is None


@pytest.mark.parametrize(
    ("aiter", "kwargs", "gate_mode"),
    [
        ("0.1.20", {}, "separated"),
        ("0.1.13", {"activation": 2, "quant_type": 3}, "interleave"),
        ("0.1.13", {"activation": 0, "quant_type": 3}, "separated"),
        ("0.1.14.dev2", {}, None),
        (None, {"gate_mode": "interleave"}, "interleave"),
    ],
)
def test_defaults_count_where_the_arguments_are_all(
    aiter: str | None, kwargs: dict[str, Any], gate_mode: str | None
) -> None:
    seen = observed_call(kwargs, aiter=aiter, defaults=True)
    assert seen.gate_mode == gate_mode
    assert seen.bias_passed is False


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (3, "per_1x32"),
        (SimpleNamespace(name="per_128x128", value=5), "per_1x128"),
        ("per_Token", "per_Token"),
        (SimpleNamespace(name="QuantType.x", value=1), "per_Tensor"),
    ],
)
def test_enumerators_are_read_by_name_number_or_object(value: Any, seen: str) -> None:
    assert observed_call({"quant_type": value}).query_fields == {"quant_type": seen}


def test_positional_arguments_are_those_of_the_release() -> None:
    layer = arguments()
    order = ("w1", "w2")
    seen = observed_call({}, args=(torch.zeros(1, 256), *(layer[name] for name in order)), aiter="0.1.20")
    assert set(seen.tensors) == {"w13_weight", "w2_weight"}
    with pytest.raises(LayoutError, match="w1 is passed twice"):
        observed_call({"w1": layer["w1"]}, args=(torch.zeros(1, 256), layer["w1"]))
    with pytest.raises(LayoutError, match="takes 22 arguments, found 40"):
        observed_call({}, args=(None,) * 40, aiter="0.1.13.post1", function="aiter.fused_moe")


def test_arguments_that_the_book_does_not_know_are_named() -> None:
    assert observed_call({"brand_new": 1, "gate_mode": "sideways"}).unread == ("brand_new", "gate_mode")


SEPARATED = ("separated", {"activation": "Silu"})


@pytest.mark.parametrize(
    ("function", "kwargs", "expected"),
    [
        ("vllm.fused_moe", {"gate_mode": "", "quant_method": 5}, (None, {"quant_type": "per_1x128"})),
        ("vllm.fused_moe", {"gate_mode": "interleave"}, ("interleave", {})),
        (
            "sglang.AiterMoeQuantInfo",
            {
                "quant_type": SimpleNamespace(name="PER_1X32", value="per_1x32"),
                "fused_moe_kwargs": {"gate_mode": "interleave"},
            },
            ("interleave", {"quant_type": "per_1x32"}),
        ),
        (
            "atom.rocm_aiter_fused_moe",
            {"gate_mode": "separated", "activation": 0},
            ("separated", {"activation": "Silu"}),
        ),
        ("aiter.asm_moe_tkw1", {"activation": 0}, (None, {"activation": "Silu", "quant_type": "per_Token"})),
    ],
)
def test_wrappers_are_read_by_their_own_names(function: str, kwargs: dict[str, Any], expected: Any) -> None:
    seen = observed_call(kwargs, function=function)
    assert (seen.gate_mode, seen.query_fields) == expected


def test_a_gate_mode_that_a_wrapper_drops_was_not_passed() -> None:
    seen = observed_call({"gate_mode": "interleave"}, function="vllm.fused_moe", aiter="0.1.13")
    assert (seen.gate_mode, seen.unread) == (None, ("gate_mode",))


@pytest.mark.parametrize(
    ("values", "kind", "ones"),
    [
        ([1, 1, 0, 0, 0], "mask", (2,)),
        ([-1, -1, 0, 1], "index", None),
        ([0, 1, 2, 3], "index", None),
        ([1, 1, 1, 1], "mask", (4,)),
        ([0, 0, 0, 0], "mask", (0,)),
        ([0, 1], None, None),
        ([5, 5], None, None),
    ],
)
def test_the_kind_of_an_expert_map_is_seen_in_its_values(values: list[int], kind: str | None, ones: Any) -> None:
    seen = observed_call({"expert_mask": torch.tensor(values, dtype=torch.int32)})
    assert (seen.expert_map, seen.mask_ones) == (kind, ones)


def test_a_tag_lost_on_the_way_to_the_kernel_is_seen() -> None:
    layer = arguments()
    rewrapped = {**layer, "w1": torch.nn.Parameter(layer["w1"].data, requires_grad=False)}
    seen = observed_call(rewrapped).tensors
    assert (seen["w13_weight"].is_shuffled, seen["w13_weight"].layout) == (False, "sep16")
    assert seen["w2_weight"].is_shuffled is True


def test_a_dtype_of_torch_is_a_word() -> None:
    assert observed_call({"quant_dtype_a": torch.float8_e4m3fnuz}).quant_dtype_a == "fp8"
