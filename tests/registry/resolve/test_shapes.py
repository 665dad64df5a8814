"""Shapes, pads and call arguments of one rank, against arithmetic written out here."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from preshuffle.registry import Decision, NoRecipeError, QueryError, TensorDecision
from preshuffle.registry.algebra.layout import Layout
from preshuffle.registry.resolve import lacking
from support.book.strategies import BOOK, decide, load_overlay

HIDDEN = 2880
# rank 0's intermediate size, the last rank's, and both padded: 90 groups of 32 in ceil(90 / tp) groups per rank
RANKS = {1: (2880, 2880, 3072), 2: (1440, 1440, 1536), 4: (736, 672, 768), 8: (384, 192, 512)}
EXPERTS = {"openai/gpt-oss-20b": 32, "openai/gpt-oss-120b": 128}


@pytest.mark.parametrize("tp", RANKS)
@pytest.mark.parametrize("ep", [1, 2, 8])
@pytest.mark.parametrize("activation_dtype", ["bf16", "fp4x2"])
@pytest.mark.parametrize("model", EXPERTS)
def test_gpt_oss_shapes(model: str, activation_dtype: str, ep: int, tp: int) -> None:
    decision = decide(model=model, activation_dtype=activation_dtype, tp=tp, ep=ep, tokens=[1])
    e = EXPERTS[model] // ep
    inter, last, padded = RANKS[tp]
    generic = activation_dtype == "fp4x2"
    w13 = ("sep16", "e8") if generic else ("gui16", "e8_gui16")
    expected = {
        "w13_weight": (w13[0], (e, 2 * inter, HIDDEN), (e, 2 * padded, 3072), (padded - inter, 192), 0, "fp4x2"),
        "w2_weight": ("sep16", (e, HIDDEN, inter), (e, 3072, padded), (192, padded - inter), 0, "fp4x2"),
        "w13_weight_scale": (w13[1], (e, 2 * inter, 90), (e, 2 * padded, 96), (padded - inter, 6), 127, "e8m0"),
        "w2_weight_scale": (
            "e8",
            (e, HIDDEN, inter // 32),
            (e, 3072, padded // 32),
            (192, (padded - inter) // 32),
            127,
            "e8m0",
        ),
        "w13_bias": ("plain", (e, 2 * inter), (e, 2 * padded), (padded - inter, 0), 0, "fp32"),
        "w2_bias": ("plain", (e, HIDDEN), (e, 3072), (192, 0), 0, "fp32"),
    }
    assert list(decision.tensors) == list(expected)
    for role, tensor in decision.tensors.items():
        pad = (tensor.pad.rows, tensor.pad.k)
        found = (tensor.layout, tensor.logical_shape, tensor.physical_shape, pad, tensor.fill, tensor.dtype)
        assert found == expected[role], role
        short = expected[role][1]
        replaced = tuple({2 * inter: 2 * last, inter: last, inter // 32: last // 32}.get(n, n) for n in short[1:])
        touched = role != "w2_bias" and last != inter
        assert tensor.short_shape == ((e, *replaced) if touched else None), role
        order = ("GUGU", "GGUU") if role.startswith("w13") else (None, None)
        assert (tensor.source_order, tensor.order) == order
        assert tensor.is_shuffled == (role in {"w13_weight", "w2_weight"})
        assert tensor.rank0_only == (role == "w2_bias")
    call = decision.call
    assert (call.hidden_pad, call.intermediate_pad) == (192, padded - inter)
    assert call.gate_mode == ("separated" if generic else "interleave")
    assert (call.quant_type, call.activation, call.bias) == ("per_1x32", "Swiglu", True)
    assert (call.swiglu_limit, call.swiglu_alpha) == (7.0, 1.702)


@pytest.mark.parametrize(
    ("engine", "tp", "pads"),
    [
        ("vllm", 1, (128, 384)),
        ("vllm", 2, (128, 64)),
        ("vllm", 4, (128, 0)),
        ("vllm", 8, (128, 128)),
        ("atom", 1, (192, 192)),
        ("atom", 8, (192, 128)),
        ("sglang", 1, (192, 192)),
        ("sglang", 8, (192, 128)),
    ],
)
def test_pads_as_each_engine_passes_them(engine: str, tp: int, pads: tuple[int, int]) -> None:
    """vLLM rounds down to 128 and 64 and doubles the intermediate one at TP 1; the others pass what is there."""
    decision = decide(engine=engine, tp=tp, tokens=[1])
    assert (decision.call.hidden_pad, decision.call.intermediate_pad) == pads
    assert decision.tensors["w2_weight"].pad.k == RANKS[tp][2] - RANKS[tp][0]


@pytest.mark.parametrize(("engine", "fill"), [("atom", 0), ("vllm", 0), ("sglang", 127), (None, 127)])
def test_scales_are_filled_as_each_engine_fills_them(engine: str | None, fill: int) -> None:
    tensors = decide(engine=engine, tokens=[1]).tensors
    assert {tensors["w13_weight_scale"].fill, tensors["w2_weight_scale"].fill} == {fill}


def is_flat(tensor: TensorDecision) -> bool:
    """Whether it is a scale that is padded at its tail, over all experts."""
    return len(tensor.physical_shape) == 2 and len(tensor.logical_shape) == 3


def fits(decision: Decision) -> bool:
    """Whether every tensor's layout can be bound to its physical shape, K in bytes or groups."""
    for role, tensor in decision.tensors.items():
        if len(tensor.physical_shape) == 1:
            continue  # one number for each expert, or one in all
        layout: Layout = BOOK.layout(tensor.layout)
        experts, rows, *rest = (1, *tensor.physical_shape) if is_flat(tensor) else tensor.physical_shape
        k = rest[0] // (2 if tensor.dtype == "fp4x2" else 1) if rest else 1
        layout.bind(experts, rows, k)
        assert role.endswith("bias") == (not rest)
    return True


@pytest.mark.parametrize(
    ("hidden", "intermediate", "tp", "engine"),
    list(product([32, 2880, 2912, 7168], [96, 2880, 4128, 6144], [1, 2, 3], [None, "atom", "vllm", "sglang"])),
)
def test_whatever_the_sizes_the_layouts_fit_and_pads_are_the_difference(
    hidden: int, intermediate: int, tp: int, engine: str | None
) -> None:
    decision = decide(hidden_size=hidden, intermediate_size=intermediate, tp=tp, engine=engine, tokens=[1])
    assert fits(decision)
    for role, tensor in decision.tensors.items():
        halves = 2 if role.startswith("w13") else 1
        physical, logical = tensor.physical_shape, tensor.logical_shape
        if len(physical) == 1:
            assert physical == logical
            continue
        assert physical[-1] - logical[-1] in (tensor.pad.k, halves * tensor.pad.rows)
        if is_flat(tensor):
            live = logical[0] * (logical[1] + halves * tensor.pad.rows)
            assert live <= physical[0] < live + 256
            continue
        assert physical[1] - logical[1] == halves * tensor.pad.rows
        assert sum(physical[2:]) - sum(logical[2:]) == tensor.pad.k
    weight, scale = decision.tensors["w2_weight"], decision.tensors["w2_weight_scale"]
    if not is_flat(scale):
        assert weight.physical_shape[2] == 32 * scale.physical_shape[2]
        assert weight.physical_shape[:2] == scale.physical_shape[:2]
    assert decision.tensors["w13_weight"].physical_shape[2] == weight.physical_shape[1]


def test_a_model_without_bias_has_no_bias_tensors() -> None:
    decision = decide(bias=False, tokens=[1])
    assert not [role for role in decision.tensors if role.endswith("bias")]
    assert decision.call.bias is False


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"intermediate_size": 2881}, "intermediate_size: 2881 is not whole groups of 32"),
        ({"tp": 64}, "tp: 64 ranks of 2 groups each leave the last without any of the 90 groups of 32; valid: 45"),
        ({"ep": 3}, "ep: 3 ranks do not divide 128 experts"),
        ({"ep": 256}, "ep: 256 ranks do not divide 128 experts"),
        ({"top_k": 129}, "top_k: 129 experts for each token, of 128 in all"),
    ],
)
def test_sizes_that_contradict_each_other(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(QueryError) as caught:
        decide(**fields)
    assert str(caught.value).startswith(text)


UNPADDED = """recipes:
  mine:
    title: t
    suits: a test
    tensors:
      w13_weight: {layout: sep16, dtype: fp4x2, order: GGUU, is_shuffled: true}
      w2_weight: {layout: sep16, dtype: fp4x2, is_shuffled: true}
    call: {gate_mode: separated, quant_type: per_1x32}
    migration_safe: true
    supports_lora: false
    evidence: [x]
rules:
  mine:
    when: {model: openai/gpt-oss-120b, arch: gfx950, activation_dtype: fp4x2, tp: [1, 2, 7], ep: 1, engine: null}
    use: mine
    because: a test
    evidence: [x]
"""


@pytest.mark.parametrize(
    ("tp", "found"),
    [
        (1, []),
        (2, ["K = 720 bytes at tp 2 is not a multiple of 32, a tile of sep16"]),
        (7, ["K = 208 bytes at tp 7 is not a multiple of 32, a tile of sep16"]),
    ],
)
def test_a_rank_that_is_not_whole_tiles_is_named(tmp_path: Path, tp: int, found: list[str]) -> None:
    decision = decide(load_overlay(tmp_path, UNPADDED), activation_dtype="fp4x2", tp=tp, tokens=[1])
    assert decision.rule == "mine"
    told = [item.message for item in decision.findings if item.code == "pad_required"]
    assert [message for message in told if "a tile of" in message] == found
    assert any("the hidden size is 2880" in message and "a multiple of 128" in message for message in told)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"weight_dtype": "bf16"}, "needs weight_dtype=fp4x2, found bf16"),
        ({"weight_dtype": "i8"}, "needs weight_dtype=fp4x2, found i8"),
        ({"quant_type": "No"}, "needs quant_type=per_1x32, found No"),
        ({"quant_type": "per_1x128"}, "needs quant_type=per_1x32, found per_1x128"),
    ],
)
def test_weights_that_a_recipe_is_not_for_get_no_recipe(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(NoRecipeError) as caught:
        decide(**fields)
    assert caught.value.nearest[0].why_not == why


def test_a_layer_without_a_gate_gets_no_recipe_of_aiter() -> None:
    with pytest.raises(NoRecipeError, match="this model has no gate; use Triton on plain bytes"):
        decide(gated=False)
    texts = lacking(BOOK, BOOK.recipes["mxfp4.gui16"], {"gated": False})
    assert "gui16 interleaves gate and up, and the model is not gated" in texts
    texts = lacking(BOOK, BOOK.recipes["atom.mxfp4.plain.silu"], {"gated": False})
    assert not texts
