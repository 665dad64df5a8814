"""Copies of stamped tensors carry their stamp, or plainly have none."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any, Final

import pytest
import torch

from preshuffle.layouts import apply, inverse, retag, stamp_of
from preshuffle.layouts.loader import AITER_TAG
from support.tensors.moe import decide, plain_tensors
from support.tensors.padded_layer import Tensors, laid_layer, plain_layer, raw, state_of

WEIGHT: Final = "w13_weight"


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda tensors: pickle.loads(pickle.dumps(tensors)),
    "torch.save": lambda tensors: saved(tensors, weights_only=True),
    "torch.save, any": lambda tensors: saved(tensors, weights_only=False),
    "clone": lambda tensors: {role: tensor.clone() for role, tensor in tensors.items()},
    "state_dict": lambda tensors: dict(as_module(tensors).state_dict()),
    "deepcopy of a module": lambda tensors: dict(copy.deepcopy(as_module(tensors)).named_parameters()),
}


def saved(tensors: Tensors, *, weights_only: bool) -> Tensors:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    buffer.seek(0)
    loaded: Tensors = torch.load(buffer, weights_only=weights_only)
    return loaded


def as_module(tensors: Tensors) -> torch.nn.Module:
    module = torch.nn.Module()
    for role, tensor in tensors.items():
        module.register_parameter(role, torch.nn.Parameter(tensor, requires_grad=False))
    return module


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_copies_carry_their_stamp_or_plainly_have_none(make: Callable[[Any], Any]) -> None:
    tensors = laid_layer()
    tensors = {role: tensor.view(torch.uint8) if "weight" in role else tensor for role, tensor in tensors.items()}
    retag(tensors)
    plain = plain_layer()
    copies = make(dict(tensors))
    states = {role: state_of(tensor) for role, tensor in copies.items()}
    assert set(states.values()) <= {"applied", None}
    stamped = {role: copies[role] for role, state in states.items() if state}
    # A copy may lie where an equal layer that was loaded has been freed, which torch cannot tell: then it is stamped.
    assert not any(hasattr(copies[role], AITER_TAG) for role in copies.keys() - stamped.keys())
    if stamped:
        inverse(stamped)
    assert all(raw(tensor).equal(raw(plain[role])) for role, tensor in stamped.items() if role.endswith("_weight"))


@pytest.mark.parametrize("make", [COPIES["deepcopy"], COPIES["pickle"], COPIES["torch.save"]])
def test_a_copy_that_was_written_to_claims_nothing(make: Callable[[Any], Any]) -> None:
    tensors = laid_layer()
    tensors = {role: tensor.view(torch.uint8) if "weight" in role else tensor for role, tensor in tensors.items()}
    copies = make(dict(tensors))
    copies[WEIGHT].data.copy_(plain_layer()[WEIGHT])
    assert state_of(copies[WEIGHT]) in (None, "unknown")
    assert state_of(tensors[WEIGHT]) == "applied"


def test_a_copy_of_what_was_inverted_has_no_stamp() -> None:
    tensors = laid_layer()
    inverse(tensors)
    copies = copy.deepcopy(tensors)
    assert all(stamp_of(tensor) is None for tensor in copies.values())


def test_swapping_a_watched_tensor_is_refused_and_changes_nothing() -> None:
    tensors = plain_tensors(decide("fp4x2"))
    apply(tensors, decide("fp4x2"))
    weight = tensors["w13_weight"]
    address, other = weight.data_ptr(), torch.empty_like(weight)
    with pytest.raises(RuntimeError, match="weakref"):
        torch.utils.swap_tensors(weight, other)
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(tensors["w2_weight"], requires_grad=False)
    assert stamp_of(module.weight) is not None
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with pytest.raises(RuntimeError, match="swap"):
            module._apply(torch.clone)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    for tensor in (weight, module.weight):
        stamp = stamp_of(tensor)
        assert stamp is not None
        assert stamp.state == "applied"
    assert weight.data_ptr() == address


def test_a_swapped_parameter_leaves_the_stamp_with_the_bytes() -> None:
    tensors = plain_tensors(decide("fp4x2"))
    apply(tensors, decide("fp4x2"))
    parameter = torch.nn.Parameter(tensors["w13_weight"], requires_grad=False)
    other = torch.nn.Parameter(torch.empty_like(parameter), requires_grad=False)
    torch.utils.swap_tensors(parameter, other)
    assert stamp_of(parameter) is None
    assert stamp_of(other) is not None
