"""Steps of recipes against references in torch and AITER."""

from __future__ import annotations

import pytest
import torch

from preshuffle.layouts import apply, inverse, invert_layout, stamp_of
from preshuffle.layouts.loader.expert import write_expert
from preshuffle.layouts.loader.reload import begin_reload, finish_reload
from preshuffle.layouts.loader.result import AITER_TAG
from preshuffle.registry import LayoutError
from support.aiter.aiter_wheel import AiterFunctions
from support.tensors.recipe_steps import (
    EXPERTS,
    HALVES,
    HIDDEN,
    INTERMEDIATE,
    Tensors,
    copies,
    decide,
    floats,
    fp8,
    mx,
    raw,
    same,
)

FN, FNUZ = torch.float8_e4m3fn, torch.float8_e4m3fnuz


def fp8_weights(*, zeros: bool = False) -> Tensors:
    return {
        "w13_weight": fp8(EXPERTS, HALVES, HIDDEN, zeros=zeros),
        "w2_weight": fp8(EXPERTS, HIDDEN, INTERMEDIATE, seed=5, zeros=zeros),
    }


def block() -> Tensors:
    return {
        **fp8_weights(),
        "w13_weight_scale": floats(EXPERTS, 2, HIDDEN // 128),
        "w2_weight_scale": floats(EXPERTS, HIDDEN // 128, 1),
    }


def per_tensor(shards: int = 2) -> Tensors:
    return {
        **fp8_weights(),
        "w13_weight_scale": floats(EXPERTS, shards),
        "w2_weight_scale": floats(EXPERTS, seed=7),
        "w13_input_scale": floats(EXPERTS, seed=8),
        "w2_input_scale": floats(EXPERTS, seed=9),
    }


def per_token(*last: int) -> Tensors:
    scales = {"w13_weight_scale": (EXPERTS, HALVES, *last), "w2_weight_scale": (EXPERTS, HIDDEN, *last)}
    return {**fp8_weights(), **{role: floats(*shape) for role, shape in scales.items()}}


class TestFnuz:
    """e4m3fn values as e4m3fnuz bytes.

    The same bits mean half as much, so scales double; 0x80 is no zero there.
    """

    def test_block_scales(self, aiter: AiterFunctions) -> None:
        decision, plain = decide("block"), {**block(), **fp8_weights(zeros=True)}
        apply(laid := copies(plain), decision)
        for role in ("w13_weight", "w2_weight"):
            bits = raw(plain[role])
            wanted = aiter.shuffle_weight(torch.where(bits == 0x80, 0, bits).to(torch.uint8))
            assert laid[role].dtype == FNUZ
            assert same(laid[role], wanted)
            assert laid[f"{role}_scale"].equal(plain[f"{role}_scale"] * 2)

    def test_the_products_stay(self) -> None:
        decision, plain = decide("token"), per_token(1)
        apply(laid := copies(plain), decision)
        bits = raw(plain["w2_weight"])
        before = plain["w2_weight"].float() * plain["w2_weight_scale"]
        after = bits.view(FNUZ).float() * laid["w2_weight_scale"]
        assert before.equal(after)

    def test_nothing_on_a_gpu_of_e4m3fn(self, aiter: AiterFunctions) -> None:
        plain = {**block(), **fp8_weights(zeros=True)}
        apply(laid := copies(plain), decide("block", "gfx950"))
        assert same(laid["w2_weight"], aiter.shuffle_weight(raw(plain["w2_weight"])))
        assert laid["w2_weight"].dtype == FN
        assert same(laid["w2_weight_scale"], plain["w2_weight_scale"])
        inverse(laid)
        assert all(same(laid[role], plain[role]) for role in plain)

    @pytest.mark.parametrize("byte", [0, 1, 0x7F, 0xFD, 0xFE, 0xFF])
    def test_e8m0_scales_get_one_more(self, byte: int) -> None:
        plain = mx("fp8")
        plain["w2_weight_scale"].fill_(byte)
        apply(laid := copies(plain), decide("mxfp8"))
        wanted = byte if byte in (0, 0xFF) else min(byte + 1, 0xFE)
        assert raw(laid["w2_weight_scale"]).unique().tolist() == sorted({wanted, 127})

    def test_inverse_gives_every_byte_back(self) -> None:
        for name, plain in (("block", block()), ("token", per_token(1)), ("mxfp8", mx("fp8"))):
            apply(laid := copies(plain), decide(name))
            inverse(laid)
            for role, tensor in plain.items():
                assert laid[role].dtype == tensor.dtype
                assert laid[role].shape == tensor.shape
                assert same(laid[role], tensor), (name, role)

    def test_negative_zeros_cannot_come_back(self) -> None:
        laid = {**block(), **fp8_weights(zeros=True)}
        apply(laid, decide("block"))
        held = copies(laid)
        with pytest.raises(
            LayoutError, match="w13_weight cannot be inverted: the step fnuz turned negative zeros into"
        ):
            inverse(laid)
        assert all(same(laid[role], held[role]) for role in held)
        assert stamp_of(laid["w13_weight"]) is not None

    @pytest.mark.parametrize(
        ("role", "change", "message"),
        [
            ("w13_weight", lambda t: raw(t).view(-1)[7:8].fill_(0xFF), "w13_weight holds NaN, which the step fnuz"),
            ("w2_weight_scale", lambda t: t.view(-1)[:1].fill_(3e38), "w2_weight_scale holds numbers whose double"),
        ],
    )
    def test_what_cannot_be_done_is_refused_before_anything(self, role: str, change: object, message: str) -> None:
        tensors = block()
        change(tensors[role])  # type: ignore[operator]
        held = copies(tensors)
        with pytest.raises(LayoutError, match=message):
            apply(tensors, decide("block"))
        assert all(same(tensors[name], held[name]) and stamp_of(tensors[name]) is None for name in held)

    def test_bytes_that_are_e4m3fnuz_already_are_refused(self) -> None:
        tensors = block()
        tensors["w2_weight"] = tensors["w2_weight"].view(FNUZ)
        with pytest.raises(LayoutError, match="w2_weight is float8_e4m3fnuz; valid: float8_e4m3fn, uint8"):
            apply(tensors, decide("block"))

    def test_addresses_stay_and_a_reload_starts_from_e4m3fn(self) -> None:
        decision, plain = decide("block"), block()
        laid = copies(plain)
        held = {role: tensor.data_ptr() for role, tensor in laid.items()}
        apply(laid, decision)
        first = copies(laid)
        begin_reload(laid)
        for role, tensor in plain.items():
            laid[role].copy_(tensor)
        finish_reload(laid, decision)
        for role, tensor in laid.items():
            assert tensor.data_ptr() == held[role]
            assert same(tensor, first[role])

    def test_tensors_made_in_inference_mode_outside_of_it(self) -> None:
        decision, plain = decide("block"), block()
        with torch.inference_mode():
            laid = copies(plain)
        apply(laid, decision)
        apply(wanted := copies(plain), decision)
        assert all(same(laid[role], wanted[role]) for role in wanted)
        inverse(laid)
        assert all(same(laid[role], plain[role]) for role in plain)

    def test_one_expert_is_written_like_all(self) -> None:
        decision, plain = decide("block"), {**block(), **fp8_weights(zeros=True)}
        apply(whole := copies(plain), decision)
        apply(laid := {**block(), "w13_weight": torch.zeros(EXPERTS, HALVES, HIDDEN).to(FN)}, decision)
        for expert in range(EXPERTS):
            for role in ("w13_weight", "w13_weight_scale"):
                write_expert(laid, expert, role, plain[role][expert])
        assert same(laid["w13_weight"], whole["w13_weight"])
        assert same(laid["w13_weight_scale"], whole["w13_weight_scale"])
        assert "fnuz" in stamp_of(laid["w13_weight"]).lost  # type: ignore[union-attr]


class TestRequantizeMax:
    """w13's two scales become their maximum.

    The shard that had the smaller one is quantized again.
    """

    @pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
    @pytest.mark.parametrize("order", ["GGUU", "GUGU"])
    def test_against_plain_torch(self, aiter: AiterFunctions, order: str, arch: str) -> None:
        decision, plain = decide("tensor", arch, gate_up_order=order), per_tensor()
        apply(laid := copies(plain), decision)
        twice, kind = (2, FNUZ) if arch == "gfx942" else (1, FN)
        scales = plain["w13_weight_scale"] * twice
        largest = scales.amax(1)
        rows = plain["w13_weight"].view(torch.uint8)
        rows = torch.cat([rows[:, 0::2], rows[:, 1::2]], 1) if order == "GUGU" else rows
        shards = rows.view(EXPERTS, 2, INTERMEDIATE, HIDDEN).view(kind).float()
        limit = torch.finfo(kind).max
        numbers = (shards * scales[..., None, None] / largest[:, None, None, None]).clamp(-limit, limit)
        kept = (scales == largest[:, None])[..., None, None]
        wanted = torch.where(kept, raw(shards.to(kind)), raw(numbers.to(kind))).view(EXPERTS, HALVES, HIDDEN)
        assert same(laid["w13_weight"], aiter.shuffle_weight(wanted))
        assert laid["w13_weight_scale"].equal(largest)
        assert laid["w2_weight_scale"].equal(plain["w2_weight_scale"] * twice)
        for role in ("w13_input_scale", "w2_input_scale"):
            assert laid[role].equal(plain[role].max().view(1) * twice)

    def test_the_products_stay_within_one_step_of_fp8(self) -> None:
        plain = per_tensor()
        apply(laid := copies(plain), decide("tensor", "gfx950"))
        assert stamp_of(laid["w13_weight"]).lost == ("requantize_max",)  # type: ignore[union-attr]
        rows = invert_layout(laid["w13_weight"], "sep16").float() * laid["w13_weight_scale"][:, None, None]
        shards = plain["w13_weight"].view(EXPERTS, 2, INTERMEDIATE, HIDDEN).float()
        before = (shards * plain["w13_weight_scale"][..., None, None]).view_as(rows)
        step = before.abs() * 2**-4 + laid["w13_weight_scale"][:, None, None] * 2**-10
        assert ((rows - before).abs() <= step).all()

    def test_different_scales_cannot_come_back_and_equal_ones_can(self) -> None:
        plain = per_tensor()
        apply(laid := copies(plain), decide("tensor", "gfx950"))
        with pytest.raises(LayoutError, match="the step requantize_max gave shards of different scales one scale"):
            inverse(laid)
        plain["w13_weight_scale"][:, 1] = plain["w13_weight_scale"][:, 0]
        plain["w13_input_scale"].fill_(0.5)
        plain["w2_input_scale"].fill_(0.25)
        apply(laid := copies(plain), decide("tensor"))
        inverse(laid)
        assert all(same(laid[role], plain[role]) and laid[role].shape == plain[role].shape for role in plain)

    @pytest.mark.parametrize(
        ("role", "value", "message"),
        [
            ("w13_weight_scale", torch.ones(EXPERTS + 1, 2), r"w13_weight_scale has shape \(4, 2\); valid: \(3,\) or"),
            ("w13_weight_scale", torch.full((EXPERTS, 2), torch.inf), "not finite"),
            ("w13_weight_scale", torch.ones(EXPERTS, 2, dtype=torch.int32), "w13_weight_scale is int32; valid: bfl"),
            ("w2_input_scale", torch.ones(0), r"w2_input_scale has shape \(0,\)"),
        ],
    )
    def test_scales_that_do_not_fit(self, role: str, value: torch.Tensor, message: str) -> None:
        tensors = {**per_tensor(), role: value}
        held = copies(tensors)
        with pytest.raises(LayoutError, match=message):
            apply(tensors, decide("tensor"))
        assert all(same(tensors[name], held[name]) for name in held)

    def test_activations_quantized_on_the_fly_have_no_scale(self) -> None:
        plain = {role: tensor for role, tensor in per_tensor().items() if not role.endswith("_input_scale")}
        plain["w13_weight_scale"][:, 1] = plain["w13_weight_scale"][:, 0]
        applied = apply(laid := copies(plain), decide("tensor"))
        assert set(applied.tensors) == set(plain)
        inverse(laid, decide("tensor"))
        assert all(same(laid[role], plain[role]) for role in plain)
        with pytest.raises(LayoutError, match="missing: w2_input_scale"):
            apply({**copies(plain), "w13_input_scale": floats(EXPERTS)}, decide("tensor"))

    def test_a_reload_in_place_has_no_room_for_two_scales(self) -> None:
        apply(laid := per_tensor(), decide("tensor"))
        with pytest.raises(LayoutError, match=r"w13_weight_scale cannot be reloaded .* \(requantize_max\)"):
            begin_reload(laid)


@pytest.mark.parametrize("last", [(), (1,)])
def test_scales_per_token_come_with_or_without_a_last_dimension(last: tuple[int, ...]) -> None:
    plain = per_token(*last)
    apply(laid := copies(plain), decide("token", gate_up_order="GUGU"))
    scale = plain["w13_weight_scale"] * 2
    assert laid["w13_weight_scale"].equal(torch.cat([scale[:, 0::2], scale[:, 1::2]], 1))
    assert laid["w2_weight_scale"].shape == plain["w2_weight_scale"].shape
    inverse(laid)
    assert all(laid[role].equal(plain[role]) for role in plain if role.endswith("_scale"))


NAMES = {
    "roles": ("w13_weight_scale", "w13_weight_scale_2", "w2_weight_scale", "w2_weight_scale_2"),
    "fp8 columns": ("w13_weight_scale1", "w13_weight_scale", "w2_weight_scale1", "w2_weight_scale"),
    "int4fp8": ("w13_int4_scale", "w13_fp8_scale", "w2_int4_scale", "w2_fp8_scale"),
}


class TestFold:
    @pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
    @pytest.mark.parametrize("order", ["GGUU", "GUGU"])
    @pytest.mark.parametrize("shards", [1, 2])
    def test_against_plain_torch(self, names: tuple[str, ...], order: str, shards: int) -> None:
        plain = per_token(1)
        first, second = floats(EXPERTS, shards, seed=11), floats(EXPERTS, seed=12)
        values = (plain.pop("w13_weight_scale"), first, plain.pop("w2_weight_scale"), second)
        tensors = {**plain, **dict(zip(names, copies({str(i): v for i, v in enumerate(values)}).values(), strict=True))}
        apply(tensors, decide("folded", "gfx950", gate_up_order=order))
        columns = values[0].view(EXPERTS, HALVES)
        apart = torch.cat([columns[:, 0::2], columns[:, 1::2]], 1) if order == "GUGU" else columns
        wanted = (apart.view(EXPERTS, 2, -1) * first.expand(EXPERTS, 2)[..., None]).view(EXPERTS, HALVES, 1)
        assert tensors[names[0]].equal(wanted)
        assert tensors[names[2]].equal(values[2] * second[:, None, None])
        assert tensors[names[1]].equal(first)
        with pytest.raises(LayoutError, match="the step fold multiplied scales"):
            inverse(tensors)

    def test_a_module_has_the_engines_names_too(self) -> None:
        module = torch.nn.Module()
        for name, tensor in {**fp8_weights(), **dict.fromkeys(NAMES["int4fp8"])}.items():
            shape = (EXPERTS,) if name.endswith("fp8_scale") else (EXPERTS, HALVES if "w13" in name else HIDDEN, 1)
            value = tensor if tensor is not None else torch.ones(shape)
            module.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
        apply(module, decide("folded", "gfx950"))
        assert getattr(module.w13_weight, AITER_TAG)
        inverse(module)  # folding ones loses nothing
        assert not hasattr(module.w13_weight, "is_shuffled")

    @pytest.mark.parametrize("static", [False, True])
    def test_static_scales_that_the_kernel_does_not_take_stay_on_the_layer(self, static: bool) -> None:
        plain = {**per_token(1), "w13_weight_scale_2": floats(EXPERTS), "w2_weight_scale_2": floats(EXPERTS, seed=12)}
        module = torch.nn.Module()
        for name, tensor in copies(plain).items():
            module.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
        for name in ("w13_input_scale", "w2_input_scale"):
            scale = torch.nn.Parameter(floats(EXPERTS, seed=13), requires_grad=False) if static else None
            module.register_parameter(name, scale)
        held = module.w13_input_scale
        applied = apply(module, decide("folded", "gfx950"))
        assert module.w13_input_scale is held
        assert "w13_input_scale" not in applied.tensors
        with pytest.raises(LayoutError, match="the step fold multiplied scales"):
            inverse(module)

    def test_an_inverse_leaves_static_scales_alone(self) -> None:
        tensors = {**per_token(1), "w13_input_scale": floats(EXPERTS), "w2_input_scale": floats(EXPERTS)}
        apply(laid := copies(tensors), decide("token", "gfx950"))
        inverse(laid)
        assert all(same(laid[role], tensors[role]) for role in tensors)

    def test_a_second_level_that_is_missing_is_named(self) -> None:
        with pytest.raises(LayoutError, match="w13_weight_scale_2 is missing, which the step fold needs"):
            apply(per_token(1), decide("folded", "gfx950"))

    def test_a_second_level_that_nobody_folds_is_too_much(self) -> None:
        tensors = {**per_token(1), "w13_weight_scale_2": floats(EXPERTS)}
        with pytest.raises(LayoutError, match="not part of the decision: w13_weight_scale_2"):
            apply(tensors, decide("token"))
