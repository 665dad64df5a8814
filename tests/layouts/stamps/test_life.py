"""What engines do to weights between start and end: state dicts, shards on disk, sleep, and experts that move."""

from __future__ import annotations

import copy
import ctypes
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from preshuffle.layouts import (
    apply,
    begin_reload,
    expert_view,
    finish_reload,
    inverse,
    plain_reload,
    retag,
    stamp_of,
    stamps_from_metadata,
    stamps_to_metadata,
)
from preshuffle.layouts.loader import AITER_TAG
from preshuffle.registry import Decision, LayoutError
from preshuffle.registry.base.words import Role
from support.tensors.moe import ACTIVATIONS, decide, in_padded_buffers, plain_tensors

Tensors = dict[str, torch.Tensor]


def raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(torch.uint8)


def layer_of(tensors: Tensors) -> torch.nn.Module:
    layer = torch.nn.Module()
    for role, tensor in tensors.items():
        layer.register_parameter(role, torch.nn.Parameter(tensor, requires_grad=False))
    return layer


def laid_out(decision: Decision, seed: int = 0) -> torch.nn.Module:
    layer = layer_of(in_padded_buffers(plain_tensors(decision, seed=seed), decision))
    apply(layer, decision)
    return layer


def states(layer: torch.nn.Module) -> set[str | None]:
    return {stamp.state if (stamp := stamp_of(one)) else None for one in layer.parameters()}


def empty_like(layer: torch.nn.Module) -> torch.nn.Module:
    """Return a layer of the same sizes and dtypes, as an engine allocates it before it loads shards."""
    return layer_of({name: raw(one).clone().zero_().view(one.dtype) for name, one in layer.named_parameters()})


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_state_dict_that_is_loaded_into_another_layer_carries_no_stamp(activation: str) -> None:
    decision = decide(activation)
    layer = laid_out(decision)
    other = empty_like(layer)
    other.load_state_dict(layer.state_dict())
    assert states(other) == {None}
    assert not any(getattr(one, AITER_TAG, False) for one in other.parameters())
    with pytest.raises(LayoutError, match="has no stamp"):
        inverse(other)
    # into a layer that is laid out already, torch writes over laid-out bytes: nobody knows what they are
    same = laid_out(decision, seed=3)
    same.load_state_dict(layer.state_dict())
    assert states(same) == {"unknown"}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_sharded_state_carries_its_stamps_in_the_files_metadata(activation: str, tmp_path: Path) -> None:
    decision = decide(activation)
    layer = laid_out(decision)
    shard = {name: raw(one) for name, one in layer.named_parameters()}
    named = dict(layer.named_parameters())
    save_file(shard, tmp_path / "rank-0.safetensors", metadata=stamps_to_metadata(named))
    other = empty_like(layer)
    with safe_open(tmp_path / "rank-0.safetensors", framework="pt") as file:
        for name, parameter in other.named_parameters():
            raw_parameter = parameter.data.view(torch.uint8)
            raw_parameter.copy_(file.get_tensor(name).view(raw_parameter.shape))
        stamps_from_metadata(dict(other.named_parameters()), file.metadata())
    retag(other)
    assert states(other) == {"applied"}
    assert getattr(other.w13_weight, AITER_TAG, False)
    inverse(other)
    inverse(layer)
    assert all(raw(one).equal(raw(getattr(layer, name))) for name, one in other.named_parameters())


def test_a_copy_of_a_layer_has_no_stamp_until_it_gets_one() -> None:
    decision = decide("fp4x2")
    layer = laid_out(decision, seed=1201)  # no other test's: memory that had these bytes before may say so
    copied = copy.deepcopy(layer)  # torch leaves all attributes of parameters out
    assert states(copied) == {None}
    assert not any(getattr(one, AITER_TAG, False) for one in copied.parameters())
    named = dict(copied.named_parameters())
    stamps_from_metadata(named, stamps_to_metadata(dict(layer.named_parameters())))
    retag(copied)
    inverse(copied)
    assert states(layer) == {"applied"}
    inverse(layer)
    assert all(raw(one).equal(raw(getattr(layer, name))) for name, one in copied.named_parameters())


def slept(layer: torch.nn.Module, restore: bool) -> None:
    """Take a layer's memory away behind torch, as a sleeping engine does; restore it or leave zeros."""
    for one in layer.parameters():
        size = one.numel() * one.element_size()
        saved = ctypes.string_at(one.data_ptr(), size)
        ctypes.memset(one.data_ptr(), 0, size)
        if restore:
            stamp = stamp_of(one)
            assert stamp is not None
            assert stamp.state == "unknown" or not any(saved)
            ctypes.memmove(one.data_ptr(), saved, size)


def test_weights_that_slept_and_came_back_are_known_again() -> None:
    decision = decide("fp4x2")
    layer = laid_out(decision)
    slept(layer, restore=True)
    assert states(layer) == {"applied"}
    retag(layer)
    assert getattr(layer.w13_weight, AITER_TAG, False)


def test_weights_that_were_given_up_in_sleep_are_unknown_until_they_are_loaded() -> None:
    decision = decide("fp4x2")
    layer, fresh = laid_out(decision), plain_tensors(decision, seed=4)
    addresses = {name: one.data_ptr() for name, one in layer.named_parameters()}
    slept(layer, restore=False)
    assert states(layer) == {"unknown"}
    with pytest.raises(LayoutError, match="was written to"), plain_reload(layer, decision):
        raise AssertionError
    begin_reload(layer)
    for role, live in fresh.items():
        place = getattr(layer, role).data[tuple(slice(size) for size in live.shape)]
        (place if live.dtype.is_floating_point else place.view(torch.uint8)).copy_(live)
    finish_reload(layer, decision)
    assert {name: one.data_ptr() for name, one in layer.named_parameters()} == addresses
    assert list(dict(layer.named_parameters())) == list(addresses)
    apply(wanted := in_padded_buffers(fresh, decision), decision)
    assert all(raw(getattr(layer, role)).equal(raw(wanted[role])) for role in wanted)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_experts_that_a_load_balancer_moves_between_ranks_keep_stamps_true(activation: str) -> None:
    decision = decide(activation)
    plain = [plain_tensors(decision, seed=seed) for seed in (0, 1)]
    ranks = [layer_of(in_padded_buffers(dict(one), decision)) for one in plain]
    for layer in ranks:
        apply(layer, decision)
    movable: list[Role] = []
    for role in decision.tensors:
        try:
            sent = [expert_view(layer, role, 1).clone() for layer in ranks]
        except LayoutError:  # scales whose rows share tiles with the next expert: written from plain rows
            continue
        movable.append(role)
        for layer, received in zip(ranks, reversed(sent), strict=True):
            expert_view(layer, role, 1).copy_(received)
    assert {"w13_weight", "w2_weight"} <= set(movable)
    for layer, own, other in zip(ranks, plain, reversed(plain), strict=True):
        assert states(layer) == {"applied"}
        moved = {role: tensor.clone() for role, tensor in own.items()}
        for role in movable:
            moved[role][1] = other[role][1]
        apply(wanted := in_padded_buffers(moved, decision), decision)
        assert all(raw(getattr(layer, role)).equal(raw(wanted[role])) for role in wanted)
