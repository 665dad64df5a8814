"""Flat scales padded at their tail, and alternating rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from preshuffle.layouts import apply, inverse, stamp_of
from preshuffle.layouts.loader.expert import expert_view, write_expert
from preshuffle.layouts.loader.reload import begin_reload, finish_reload
from preshuffle.layouts.stamps.stamp import put_stamp
from preshuffle.registry import LayoutError
from support.aiter.aiter_wheel import AiterFunctions
from support.tensors.recipe_steps import EXPERTS, INTERMEDIATE, biases, copies, decide, mx, raw, same


class TestTail:
    """AITER flattens scales over experts and pads the end.

    Where nothing needs padding the shape stays.
    """

    @pytest.mark.parametrize(("intermediate", "order"), [(64, "GGUU"), (64, "GUGU"), (128, "GGUU"), (320, "GGUU")])
    def test_against_aiters_own_function(self, aiter: AiterFunctions, intermediate: int, order: str) -> None:
        decision = decide("mxfp4", "gfx950", intermediate_size=intermediate, bias=False, gate_up_order=order)
        plain = mx("fp4x2", intermediate)
        apply(laid := copies(plain), decision)
        for role in ("w13_weight_scale", "w2_weight_scale"):
            rows = plain[role]
            if role.startswith("w13") and order == "GUGU":
                rows = torch.cat([rows[:, 0::2], rows[:, 1::2]], 1)
            flat = rows.reshape(-1, rows.shape[-1])
            padded = torch.full((-(-flat.shape[0] // 256) * 256, -(-flat.shape[1] // 8) * 8), 127, dtype=torch.uint8)
            padded[: flat.shape[0], : flat.shape[1]] = flat
            assert same(laid[role], aiter.e8m0_shuffle(padded)), role
            divides = padded.shape == flat.shape
            assert tuple(laid[role].shape) == tuple(padded.shape)
            decided = decision.tensors[role]
            assert decided.physical_shape == (tuple(rows.shape) if divides else tuple(padded.shape))
            assert decided.passed_shape == (tuple(padded.shape) if divides else None)
        inverse(laid)
        assert all(same(laid[role], plain[role]) and laid[role].shape == plain[role].shape for role in plain)

    def test_a_buffer_of_the_padded_size_keeps_its_address(self) -> None:
        decision, plain = decide("mxfp4", "gfx950", intermediate_size=64, bias=False), mx("fp4x2", 64)
        apply(wanted := copies(plain), decision)
        tensors = copies(plain)
        for role in ("w13_weight_scale", "w2_weight_scale"):
            rows, k = decision.tensors[role].physical_shape
            tensors[role] = torch.full((rows, k), 9, dtype=torch.uint8)
            tensors[role][: plain[role].shape[0] * plain[role].shape[1], : plain[role].shape[2]] = plain[role].flatten(
                0, 1
            )
        held = {role: tensor.data_ptr() for role, tensor in tensors.items() if role.endswith("_scale")}
        apply(tensors, decision)
        for role, address in held.items():
            assert tensors[role].data_ptr() == address
            assert same(tensors[role], wanted[role])
        begin_reload(tensors)
        for role in held:
            tensors[role][: plain[role].shape[0] * plain[role].shape[1], : plain[role].shape[2]] = plain[role].flatten(
                0, 1
            )
        for role in ("w13_weight", "w2_weight"):
            raw(tensors[role]).copy_(raw(plain[role]))
        finish_reload(tensors, decision)
        assert all(same(tensors[role], wanted[role]) for role in held)

    def test_one_expert_whose_rows_fill_tiles_migrates_as_a_slice_of_the_flat_scale(self) -> None:
        decision, plain = decide("mxfp4", "gfx950", intermediate_size=64, bias=False), mx("fp4x2", 64)
        apply(laid := copies(plain), decision)
        turned = [2, 0, 1]
        apply(wanted := {role: tensor[turned] for role, tensor in plain.items()}, decision)
        for role in ("w13_weight_scale", "w2_weight_scale"):
            assert laid[role].dim() == 2
            held = [expert_view(laid, role, expert).clone() for expert in turned]
            for expert, rows in enumerate(held):
                expert_view(laid, role, expert).copy_(rows)
            assert same(laid[role], wanted[role])

    def test_one_expert_whose_rows_share_a_tile_is_no_slice(self) -> None:
        apply(laid := copies(mx("fp4x2", 64)), decide("mxfp4", "gfx950", intermediate_size=64, bias=False))
        stamp = stamp_of(laid["w13_weight_scale"])
        assert stamp is not None
        put_stamp(laid["w13_weight_scale"], replace(stamp, flat_rows=120))
        with pytest.raises(LayoutError, match="120 rows do not fill tiles of 32"):
            expert_view(laid, "w13_weight_scale", 1)

    def test_padded_flat_scales_come_back_at_the_same_address(self) -> None:
        decision, plain = decide("mxfp4", "gfx950", intermediate_size=64, bias=False), mx("fp4x2", 64)
        tensors = copies(plain)
        for role in ("w13_weight_scale", "w2_weight_scale"):
            rows = plain[role].flatten(0, 1)
            tensors[role] = torch.zeros(decision.tensors[role].physical_shape, dtype=torch.uint8)
            tensors[role][: rows.shape[0], : rows.shape[1]] = rows
        before = {role: (tensor.data_ptr(), tensor.clone()) for role, tensor in tensors.items()}
        apply(tensors, decision)
        inverse(tensors)
        for role, (address, tensor) in before.items():
            assert tensors[role].data_ptr() == address
            assert same(tensors[role], tensor)
            assert stamp_of(tensors[role]) is None

    def test_all_experts_of_a_flat_scale_can_be_written(self) -> None:
        decision, plain = decide("mxfp4", "gfx950", intermediate_size=64, bias=False), mx("fp4x2", 64)
        apply(wanted := copies(plain), decision)
        other = {**plain, "w13_weight_scale": torch.zeros_like(plain["w13_weight_scale"])}
        apply(laid := copies(other), decision)
        for expert in range(EXPERTS):
            write_expert(laid, expert, "w13_weight_scale", plain["w13_weight_scale"][expert])
        assert same(laid["w13_weight_scale"], wanted["w13_weight_scale"])

    @given(st.integers(1, 6), st.integers(1, 5).map(lambda n: 2 * n))
    @settings(max_examples=15, deadline=None)
    def test_any_size_comes_back(self, experts: int, groups: int) -> None:
        decision = decide("mxfp4", "gfx950", intermediate_size=32 * groups, num_experts=experts, top_k=1, bias=False)
        plain = mx("fp4x2", 32 * groups, experts)
        apply(laid := copies(plain), decision)
        inverse(laid)
        assert all(same(laid[role], plain[role]) for role in plain)


class TestAlternatingTargets:
    """Kernels whose SwiGLU reads g0, u0, g1, u1.

    Rows are put so from either order, and back.
    """

    @pytest.mark.parametrize("order", ["GGUU", "GUGU"])
    def test_plain_rows(self, order: str) -> None:
        plain = {**mx("fp4x2"), **biases()}
        apply(laid := copies(plain), decide("alternating", "gfx950", gate_up_order=order))
        for role in ("w13_weight", "w13_weight_scale", "w13_bias"):
            rows = plain[role]
            if order == "GGUU":
                rows = torch.stack([rows[:, :INTERMEDIATE], rows[:, INTERMEDIATE:]], 2).flatten(1, 2)
            assert same(laid[role], rows), role
        assert same(laid["w2_weight"], plain["w2_weight"])
        inverse(laid)
        assert all(same(laid[role], plain[role]) for role in plain)

    @pytest.mark.parametrize("order", ["GGUU", "GUGU"])
    def test_tiles_of_alternating_rows_are_gurow16(self, order: str, aiter: AiterFunctions) -> None:
        plain = {role: tensor for role, tensor in mx("fp4x2").items() if not role.endswith("_scale")}
        apply(laid := copies(plain), decide("gurow", "gfx950", gate_up_order=order))
        rows = plain["w13_weight"]
        if order == "GGUU":
            rows = torch.stack([rows[:, :INTERMEDIATE], rows[:, INTERMEDIATE:]], 2).flatten(1, 2)
        assert same(laid["w13_weight"], aiter.shuffle_weight(rows.contiguous()))
        for expert in range(EXPERTS):
            write_expert(laid, expert, "w13_weight", plain["w13_weight"][expert])
        assert same(laid["w13_weight"], aiter.shuffle_weight(rows.contiguous()))
