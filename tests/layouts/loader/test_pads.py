"""Pads of buffers in the physical shape: live rows there are refused, and nothing is written."""

from __future__ import annotations

import re

import pytest
import torch

from preshuffle.layouts import apply, begin_reload, finish_reload, inverse, stamp_of
from preshuffle.layouts.moves import InPlace
from preshuffle.registry import Decision, LayoutError
from support.tensors.moe import ACTIVATIONS, decide, in_padded_buffers, plain_tensors

Tensors = dict[str, torch.Tensor]


def raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(torch.uint8)


def copies(tensors: Tensors) -> Tensors:
    return {role: raw(tensor).clone().view(tensor.dtype).view(tensor.shape) for role, tensor in tensors.items()}


def refused(tensors: Tensors, decision: Decision, **options: bool) -> str:
    """Return why ``apply`` refuses, after a check that nothing was changed."""
    before = copies(tensors)
    with pytest.raises(LayoutError) as caught:
        apply(tensors, decision, **options)  # type: ignore[arg-type]
    assert all(raw(tensors[role]).equal(raw(before[role])) for role in tensors)
    assert all(stamp_of(tensor) is None for tensor in tensors.values())
    return str(caught.value)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_pads_that_move_along_give_the_same_bytes(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU does it in place, which makes each tensor one simple move."""
    decision = decide(activation)
    plain = plain_tensors(decision)
    wanted, found = (in_padded_buffers(plain, decision) for _ in range(2))
    apply(wanted, decision)
    monkeypatch.setattr(InPlace, "_moved", lambda self, data: self.plan_with_pads)
    apply(found, decision)
    assert all(raw(found[role]).equal(raw(wanted[role])) for role in wanted)
    monkeypatch.undo()
    inverse(found)
    assert all(raw(found[role]).equal(raw(tensor)) for role, tensor in in_padded_buffers(plain, decision).items())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_loader_that_narrows_by_the_padded_size_is_refused(activation: str) -> None:
    """Rank 0 of 4 gets as many rows as its buffer has, the last of them rank 1's."""
    decision, everything = decide(activation, tp=4), plain_tensors(decide(activation))
    tensors = in_padded_buffers(plain_tensors(decision), decision)
    for role, buffer in tensors.items():
        parts = tuple(slice(min(sizes)) for sizes in zip(buffer.shape, everything[role].shape, strict=True))
        buffer[parts] = everything[role][parts]
    text = refused(tensors, decision)
    rows, physical = decision.tensors["w13_weight"].logical_shape[1], tensors["w13_weight"].shape[1]
    assert f"w13_weight of shape {tuple(tensors['w13_weight'].shape)} holds" in text
    assert f"the first at expert 0, row {rows}, K 0; expected zeros behind row {rows} of {physical}" in text
    assert re.search(r"likewise w2_weight \(\d+\), w13_bias \(\d+\)", text)
    assert "nothing was changed" in text
    assert "pads='overwrite'" in text


@pytest.mark.parametrize(
    ("role", "place", "where"),
    [
        ("w13_weight", (3, 1000, 5), "holds 1 non-zero elements .* the first at expert 3, row 1000, K 5;"),
        ("w13_weight", (2, 7, 120), "holds 1 non-zero elements .* the first at expert 2, row 7, K 120; .* K 80 of 128"),
        ("w2_weight", (0, 255, 127), "the first at expert 0, row 255, K 127; expected zeros behind row 160 of 256"),
        ("w13_bias", (1, 1023), "w13_bias .* holds 1 non-zero elements .* the first at expert 1, row 1023; "),
        ("w2_bias", (3, 160), "w2_bias .* the first at expert 3, row 160; "),
    ],
)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_value_in_a_pad_is_found(activation: str, role: str, place: tuple[int, ...], where: str) -> None:
    decision = decide(activation)
    tensors = in_padded_buffers(plain_tensors(decision), decision)
    tensors[role][place] = 3
    text = refused(tensors, decision)
    assert re.search(where, text)
    assert "likewise" not in text


@pytest.mark.parametrize("half", [0, 1])
def test_the_pad_of_each_half_is_read_where_rows_are_gguu(half: int) -> None:
    decision = decide("fp4x2", gate_up_order="GGUU", engine=None)
    decided = decision.tensors["w13_weight"]
    rows, physical = decided.logical_shape[1] // 2, decided.physical_shape[1] // 2
    tensors = in_padded_buffers(plain_tensors(decision), decision)
    for role in ("w13_weight", "w13_bias", "w13_weight_scale"):
        plain = plain_tensors(decision)[role]
        tensors[role].zero_()
        for number in range(2):
            into = tensors[role][:, number * physical :][:, :rows]
            live = plain[:, number * rows :][:, :rows]
            (into[..., : live.shape[2]] if live.dim() > 2 else into).copy_(live)
    apply(copies(tensors), decision)
    tensors["w13_weight"][1, half * physical + rows, 2] = 1
    assert f"the first at expert 1, row {half * physical + rows}, K 2; " in refused(tensors, decision)
    assert f"zeros behind row {rows} of {physical} in each half (gate, up)" in refused(tensors, decision)


def test_the_last_rank_of_a_buffer_is_not_another_rank() -> None:
    decision = decide("fp4x2", tp=8)
    tensors = in_padded_buffers(plain_tensors(decision), decision)
    assert "last_rank" in refused(tensors, decision, last_rank=True)
    apply(tensors, decision)


@pytest.mark.parametrize("fill", [0, 1, 127, 200])
def test_a_scales_pad_proves_nothing(fill: int) -> None:
    decision = decide("fp4x2")
    plain = plain_tensors(decision)
    tensors = in_padded_buffers(plain, decision)
    for role in ("w13_weight_scale", "w2_weight_scale"):
        live = tuple(slice(size) for size in plain[role].shape)
        tensors[role].fill_(fill)[live] = plain[role]
    apply(wanted := dict(plain), decision)
    apply(tensors, decision)
    assert all(raw(tensors[role]).equal(raw(wanted[role])) for role in wanted)


def test_uninitialised_pads_are_overwritten_where_the_caller_says_so() -> None:
    decision = decide("bf16")
    plain = plain_tensors(decision)
    tensors = in_padded_buffers(plain, decision)
    for role in ("w13_weight", "w2_weight", "w2_bias"):
        live = tuple(slice(size) for size in plain[role].shape)
        tensors[role].fill_(77)[live] = plain[role]
    assert "w13_weight" in refused(tensors, decision)
    apply(tensors, decision, pads="overwrite")
    apply(wanted := dict(plain), decision)
    assert all(raw(tensors[role]).equal(raw(wanted[role])) for role in wanted)
    inverse(tensors, decision)
    apply(tensors, decision)  # an inverse leaves zeros


def test_pads_have_two_values() -> None:
    with pytest.raises(LayoutError, match="pads = 'keep'; valid: refuse, overwrite"):
        apply(plain_tensors(decide("fp4x2")), decide("fp4x2"), pads="keep")  # type: ignore[arg-type]


class TestReload:
    """A reload begins on laid-out bytes: only pads that were written since then prove anything."""

    def begun(self) -> tuple[Decision, Tensors, Tensors]:
        decision = decide("fp4x2")
        apply(tensors := in_padded_buffers(plain_tensors(decision), decision), decision)
        begin_reload(tensors)
        fresh = plain_tensors(decision, seed=9)
        for role, live in fresh.items():
            into = tensors[role] if role.endswith("_bias") else tensors[role].view(torch.uint8)
            into[tuple(slice(size) for size in live.shape)] = live
        apply(wanted := dict(fresh), decision)
        return decision, tensors, wanted

    def test_pads_that_hold_the_laid_out_bytes_still_are_overwritten(self) -> None:
        decision, tensors, wanted = self.begun()
        finish_reload(tensors, decision)
        assert all(raw(tensors[role]).equal(raw(wanted[role])) for role in wanted)

    @pytest.mark.parametrize("role", ["w13_weight", "w2_weight", "w13_bias"])
    def test_pads_that_were_written_are_refused(self, role: str) -> None:
        decision, tensors, _ = self.begun()
        raw(tensors[role])[2, -1, ...] += 1
        before = copies(tensors)
        with pytest.raises(LayoutError, match=f"{role} of shape .* non-zero elements where the decision has a pad"):
            finish_reload(tensors, decision)
        assert all(raw(tensors[name]).equal(raw(before[name])) for name in tensors)
        assert {stamp.state for tensor in tensors.values() if (stamp := stamp_of(tensor))} == {"reloading"}
        finish_reload(tensors, decision, pads="overwrite")

    def test_pads_that_were_zeroed_are_no_evidence(self) -> None:
        decision, tensors, wanted = self.begun()
        for role, decided in decision.tensors.items():  # the tail of K keeps what it held
            tensor = tensors[role]
            (tensor if role.endswith("_bias") else raw(tensor))[:, decided.logical_shape[1] :] = 0
        finish_reload(tensors, decision)
        assert all(raw(tensors[role]).equal(raw(wanted[role])) for role in wanted)
