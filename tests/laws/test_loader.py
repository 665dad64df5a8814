"""Law of the loader: every case of the engines' tables round-trips.

A layer of any case, in any size.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from preshuffle.layouts import (
    apply,
    begin_reload,
    expert_view,
    finish_reload,
    inverse,
    prove,
    stamp_of,
    stamps_from_metadata,
    stamps_to_metadata,
    write_expert,
)
from preshuffle.registry import Decision, LayoutError, PreshuffleError, Query
from preshuffle.registry.base.words import Role
from support.book.engine_table import read_table
from support.book.strategies import REGISTRY
from support.tensors.plain_layer import checkpoint

Tensors = dict[str, torch.Tensor]
FEW = [HealthCheck.filter_too_much, HealthCheck.too_slow]  # not every size has a recipe
CASES = [case for name in ("book_atom", "book_vllm", "book_sglang", "book_recommendation") for case in read_table(name)]


def raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(torch.uint8).flatten()


def copies(tensors: Tensors) -> Tensors:
    """Clones by way of bytes: torch cannot copy every dtype."""
    return {role: raw(tensor).clone().view(tensor.dtype).view(tensor.shape) for role, tensor in tensors.items()}


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (one.dtype, one.shape) == (other.dtype, other.shape) and raw(one).equal(raw(other))


@st.composite
def layers(draw: st.DrawFn) -> tuple[Decision, Tensors]:
    query: dict[str, Any] = {
        **draw(st.sampled_from([case.query for case in CASES if case.recipe])),
        "hidden_size": 32 * draw(st.integers(1, 12)),
        "intermediate_size": 32 * draw(st.integers(1, 15)),
        "num_experts": draw(st.integers(1, 4)),
        "top_k": 1,
        "tp": draw(st.sampled_from([1, 1, 2, 4])),
    }
    query.pop("tokens", None)
    try:
        # bytes are what is tested: also those of sizes with which an engine would do something wrong
        decision = REGISTRY.resolve(Query.parse(query)).model_copy(update={"findings": ()})
        apply(dict(plain := checkpoint(decision, seed=draw(st.integers(0, 99)))), decision)
    except PreshuffleError:
        assume(False)
    return decision, plain


@given(layers(), st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=FEW)
def test_round_and_back(layer: tuple[Decision, Tensors], data: st.DataObject) -> None:
    decision, plain = layer
    laid = copies(plain)
    apply(laid, decision)
    assert [check for check in prove(plain, laid, decision) if not check.ok] == []

    moved = copies(laid)
    assert all(stamp_of(tensor) is None for tensor in moved.values())
    stamps_from_metadata(moved, stamps_to_metadata(laid))
    lost = [loss for tensor in laid.values() if (stamp := stamp_of(tensor)) for loss in stamp.lost]
    try:
        inverse(moved, decision)
    except LayoutError:
        assert lost
        return
    assert all(same(moved[role], plain[role]) for role in plain)

    role = cast("Role", data.draw(st.sampled_from(sorted(role for role in plain if plain[role].dim() == 3))))
    if any(step != "fnuz" for step in decision.tensors[role].steps):
        return
    experts, rows, _ = plain[role].shape
    expert, first = data.draw(st.integers(0, experts - 1)), data.draw(st.integers(0, rows - 1))
    part = checkpoint(decision, seed=100)[role][expert, first : first + data.draw(st.integers(1, rows - first))]
    write_expert(laid, expert, role, part, first_row=first)
    changed = copies(plain)
    raw_rows = changed[role].view(torch.uint8)[expert, first : first + part.shape[0]]
    raw_rows.copy_(part.contiguous().view(torch.uint8))
    wanted = copies(changed)
    apply(wanted, decision)
    assert same(laid[role], wanted[role])

    fresh = copies(plain)
    apply(fresh, decision)
    for expert in range(experts):
        expert_view(fresh, role, expert).view(torch.uint8).copy_(expert_view(laid, role, expert).view(torch.uint8))
    assert same(fresh[role], laid[role])


@given(layers())
@settings(max_examples=40, deadline=None, suppress_health_check=FEW)
def test_a_reload_keeps_addresses_where_nothing_is_padded(layer: tuple[Decision, Tensors]) -> None:
    decision, plain = layer
    tensors = copies(plain)
    apply(tensors, decision)
    if any(decided.steps for decided in decision.tensors.values()):
        return
    if any(raw(tensors[role]).numel() != raw(plain[role]).numel() for role in plain):  # a bias that was cast
        return
    wanted, addresses = copies(tensors), {role: tensor.data_ptr() for role, tensor in tensors.items()}
    begin_reload(tensors)
    for role, tensor in tensors.items():
        raw(tensor).copy_(raw(plain[role]))
    finish_reload(tensors, decision)
    assert all(same(tensors[role], wanted[role]) for role in plain)
    assert {role: tensor.data_ptr() for role, tensor in tensors.items()} == addresses
