"""Float casts: an inverse restores the bits, or refuses."""

from __future__ import annotations

import pytest
import torch

from preshuffle.layouts import apply, expert_view, inverse, stamp_of, write_expert
from preshuffle.registry import LayoutError
from support.tensors import recipe_steps as steps
from support.tensors.moe import decide, in_padded_buffers, plain_tensors

Tensors = dict[str, torch.Tensor]


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.view(torch.uint8).equal(other.view(torch.uint8))


def every_bf16(shape: torch.Size) -> torch.Tensor:
    """Numbers of every kind, signalling and quiet NaN with payloads among them."""
    bits = torch.arange(shape.numel(), dtype=torch.int32) * 65536 // shape.numel()
    bits[:6] = torch.tensor([0x7F81, 0xFF81, 0x7FFF, 0x7FC1, 0x8000, 0x0001])
    return bits.to(torch.int16).view(torch.bfloat16).view(shape)


@pytest.mark.parametrize("padded", [False, True])
def test_bf16_biases_come_back_from_fp32_to_the_bit(padded: bool) -> None:
    decision = decide("fp4x2")
    plain = plain_tensors(decision)
    for role in ("w13_bias", "w2_bias"):
        plain[role] = every_bf16(plain[role].shape)
    plain = in_padded_buffers(plain, decision) if padded else plain
    tensors = {role: tensor.clone() for role, tensor in plain.items()}
    apply(tensors, decision)
    assert tensors["w13_bias"].dtype == torch.float32
    inverse(tensors)
    assert all(same(tensors[role], plain[role]) for role in plain)


def int4(scale: torch.dtype, *, seed: int = 1) -> Tensors:
    decision = steps.decide("int4")
    values = torch.Generator().manual_seed(seed)
    return {
        role: torch.randint(-8, 8, decided.logical_shape, dtype=torch.int8, generator=values)
        if role.endswith("_weight")
        else torch.rand(decided.logical_shape, generator=values).to(torch.bfloat16).to(scale)
        for role, decided in decision.tensors.items()
    }


@pytest.mark.parametrize("scale", [torch.bfloat16, torch.float16, torch.float32])
def test_scales_of_another_float_come_back_as_what_they_were(scale: torch.dtype) -> None:
    plain = int4(scale)
    for role in ("w13_weight_scale", "w2_weight_scale"):
        plain[role].clamp_(min=2**-6)  # below, fp16 has not all that bf16 has
    tensors = {role: tensor.clone() for role, tensor in plain.items()}
    apply(tensors, steps.decide("int4"))
    assert tensors["w13_weight_scale"].dtype == torch.bfloat16
    inverse(tensors)
    assert all(same(tensors[role], plain[role]) for role in plain)


@pytest.mark.parametrize("scale", [torch.float16, torch.float32])
def test_numbers_that_a_narrower_float_cuts_cannot_come_back(scale: torch.dtype) -> None:
    plain = int4(scale)
    plain["w2_weight_scale"][1, 2, 3] = 1 + 2**-9
    tensors = {role: tensor.clone() for role, tensor in plain.items()}
    apply(tensors, steps.decide("int4"))
    assert stamp_of(tensors["w2_weight_scale"]).lost == ("cast",)  # type: ignore[union-attr]
    laid = tensors["w13_weight_scale"].clone()
    with pytest.raises(LayoutError, match=r"w2_weight_scale cannot be inverted: the cast .* rounded numbers"):
        inverse(tensors)
    assert tensors["w13_weight_scale"].equal(laid)


def test_what_is_written_into_a_bias_counts_too() -> None:
    decision = decide("fp4x2")
    apply(tensors := plain_tensors(decision), decision)
    write_expert(tensors, 0, "w2_bias", torch.full((7,), 0.5))
    assert stamp_of(tensors["w2_bias"]).lost == ()  # type: ignore[union-attr]
    write_expert(tensors, 0, "w2_bias", torch.full((7,), 1 / 3))
    with pytest.raises(LayoutError, match="w2_bias cannot be inverted: the cast"):
        inverse(tensors)


def test_a_scale_of_one_number_for_each_expert_is_written_and_seen() -> None:
    decision, tensors = steps.decide("tensor", "gfx950"), {
        "w13_weight": steps.fp8(3, 256, 256), "w2_weight": steps.fp8(3, 256, 128, seed=5),
        "w13_weight_scale": torch.full((3, 2), 0.5), "w2_weight_scale": steps.floats(3),
        "w13_input_scale": steps.floats(3), "w2_input_scale": steps.floats(3),
    }  # fmt: skip
    apply(tensors, decision)
    write_expert(tensors, 1, "w2_weight_scale", torch.tensor([0.125]))
    write_expert(tensors, 2, "w2_weight_scale", torch.tensor(0.25))
    assert tensors["w2_weight_scale"][1:].tolist() == [0.125, 0.25]
    assert expert_view(tensors, "w2_weight_scale", 2) == 0.25
    with pytest.raises(LayoutError, match="w2_input_scale: all experts share one number"):
        expert_view(tensors, "w2_input_scale", 0)


@pytest.mark.parametrize("padded", [False, True])
def test_fp4_typed_int8_is_taken_like_uint8_and_given_back_as_int8(padded: bool) -> None:
    decision = decide("fp4x2")
    plain = plain_tensors(decision)
    apply(wanted := dict(plain), decision)
    typed = {role: tensor.view(torch.int8) if role.endswith("_weight") else tensor for role, tensor in plain.items()}
    typed = in_padded_buffers(typed, decision) if padded else typed
    tensors = {role: tensor.clone() for role, tensor in typed.items()}
    apply(tensors, decision)
    for role in ("w13_weight", "w2_weight"):
        assert tensors[role].dtype == wanted[role].dtype
        assert tensors[role].view(torch.uint8).equal(wanted[role].view(torch.uint8))
    inverse(tensors, decision)
    assert all(tensors[role].dtype == typed[role].dtype and tensors[role].equal(typed[role]) for role in typed)
