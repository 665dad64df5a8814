"""``write_expert`` and ``expert_view`` on laid-out storage."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from preshuffle.layouts import apply, expert_view, stamp_of, write_expert
from preshuffle.registry import Decision, LayoutError
from preshuffle.registry.base.words import Role
from support.tensors.moe import ACTIVATIONS, decide, in_padded_buffers, plain_tensors


def laid_out(decision: Decision, seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    plain = plain_tensors(decision, seed=seed)
    tensors = dict(plain)
    apply(tensors, decision)
    return plain, tensors


def raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(torch.uint8)


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_writing_a_part_equals_laying_the_changed_whole_out(data: st.DataObject) -> None:
    fields = {"gate_up_order": data.draw(st.sampled_from(["GUGU", "GGUU"])), "tp": data.draw(st.sampled_from([1, 4]))}
    decision = decide(data.draw(st.sampled_from(ACTIVATIONS)), **fields)
    plain, tensors = laid_out(decision)
    role = cast("Role", data.draw(st.sampled_from(sorted(tensors))))
    shape = (*plain[role].shape, 1)[:3]
    expert = data.draw(st.integers(0, shape[0] - 1))
    row = data.draw(st.integers(0, shape[1] - 1))
    rows = data.draw(st.integers(1, shape[1] - row))
    first_k = data.draw(st.integers(0, shape[2] - 1))
    width = data.draw(st.integers(1, shape[2] - first_k))
    fresh = plain_tensors(decision, seed=5)[role]
    part = fresh[expert, row : row + rows]
    part = part if part.dim() == 1 else part[:, first_k : first_k + width]
    before = tensors[role].data_ptr()
    write_expert(tensors, expert, role, part, first_row=row, first_k=first_k)
    changed = {name: tensor.clone() for name, tensor in plain.items()}
    if part.dim() == 1:
        changed[role][expert, row : row + rows] = part
    else:
        changed[role][expert, row : row + rows, first_k : first_k + width] = part
    apply(changed, decision)
    assert raw(tensors[role]).equal(raw(changed[role]))
    assert tensors[role].data_ptr() == before


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_experts_migrate_as_views(activation: str) -> None:
    decision = decide(activation)
    _, tensors = laid_out(decision)
    _, others = laid_out(decision, seed=3)
    for role in decision.tensors:
        expert_view(tensors, role, 1).view(torch.uint8).copy_(expert_view(others, role, 2).view(torch.uint8))
    plain, _ = laid_out(decision)
    fresh = plain_tensors(decision, seed=3)
    for name in plain:
        plain[name] = plain[name].clone()
        plain[name][1] = fresh[name][2]
    apply(plain, decision)
    assert all(raw(tensors[role]).equal(raw(plain[role])) for role in plain)
    assert stamp_of(expert_view(tensors, "w13_weight", 0)) == stamp_of(tensors["w13_weight"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"expert": 4}, r"rows 0\.\.959, K 0\.\.79 of expert 4 are not inside \(4, 960, 80\)"),
        ({"first_row": 1}, r"rows 1\.\.960"),
        ({"first_k": 1}, r"K 1\.\.80"),
        ({"first_row": -1}, r"rows -1"),
        ({"role": "w13_input_scale"}, r"the target has no w13_input_scale; it has: w13_weight"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    decision = decide("fp4x2")
    plain, tensors = laid_out(decision)
    before = raw(tensors["w13_weight"]).clone()
    whole: dict[str, Any] = {"expert": 0, "role": "w13_weight", "plain_rows": plain["w13_weight"][0]}
    with pytest.raises(LayoutError, match=message):
        write_expert(tensors, **{**whole, **arguments})
    assert raw(tensors["w13_weight"]).equal(before)


def test_rows_of_another_dtype_are_refused() -> None:
    plain, tensors = laid_out(decide("fp4x2"))
    with pytest.raises(LayoutError, match=r"rows are torch\.int16"):
        write_expert(tensors, 0, "w13_weight", plain["w13_weight"][0].to(torch.int16))


def test_plain_tensors_have_no_experts_to_write() -> None:
    plain = in_padded_buffers(plain_tensors(decide("fp4x2")), decide("fp4x2"))
    with pytest.raises(LayoutError, match=r"w2_weight is not laid out \(no stamp\)"):
        write_expert(plain, 0, "w2_weight", plain["w2_weight"][0])
    with pytest.raises(LayoutError, match=r"w2_weight is not laid out \(no stamp\)"):
        expert_view(plain, "w2_weight", 0)


@pytest.mark.parametrize("expert", [1.0, True, "1"])
def test_what_is_no_number_of_an_expert_is_refused_before_anything_moves(expert: Any) -> None:
    apply(tensors := plain_tensors(decision := decide("fp4x2")), decision)
    with pytest.raises(LayoutError, match=r"expert = .*; valid: a whole number"):
        write_expert(tensors, expert, "w2_weight", tensors["w2_weight"][0].view(torch.uint8))
    with pytest.raises(LayoutError, match=r"expert = .*; valid: a whole number"):
        expert_view(tensors, "w2_weight", expert)
    stamp = stamp_of(tensors["w2_weight"])
    assert stamp is not None
    assert stamp.state == "applied"
