"""Stamps follow their bytes, and disappear with them."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from preshuffle.layouts import Stamp, apply, expert_view, inverse, stamp_of
from preshuffle.registry import LayoutError
from support.tensors.moe import decide, in_padded_buffers, plain_tensors

FP4X2 = torch.float4_e2m1fn_x2


WRAPS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Parameter": lambda tensor: torch.nn.Parameter(tensor, requires_grad=False),
    "data": lambda tensor: tensor.data,
    "detach": lambda tensor: tensor.detach(),
    "view(dtype)": lambda tensor: tensor.view(torch.uint8),
    "one expert": lambda tensor: tensor.view(torch.uint8)[1],
    "reshape": lambda tensor: tensor.view(torch.uint8).view(-1),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS.keys())
def test_the_stamp_survives_rewrapping(wrap: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = plain_tensors(decide("fp4x2"))
    apply(tensors, decide("fp4x2"))
    stamp = stamp_of(wrap(tensors["w13_weight"]))
    assert isinstance(stamp, Stamp)
    assert (stamp.recipe, stamp.layout, stamp.pad) == ("mxfp4.sep16", "sep16", (32, 96))


def test_a_clone_has_no_stamp_and_freed_storage_frees_it() -> None:
    tensors = plain_tensors(decide("fp4x2"))
    apply(tensors, decide("fp4x2"))
    assert stamp_of(tensors["w13_weight"].view(torch.uint8).clone()) is None
    storage = weakref.ref(tensors["w13_weight"].untyped_storage())
    del tensors
    gc.collect()
    assert storage() is None


def test_two_tensors_in_one_storage_have_stamps_of_their_own() -> None:
    decision = decide("fp4x2")
    padded = in_padded_buffers(plain_tensors(decision), decision)
    weights = [padded["w13_weight"], padded["w2_weight"]]
    pool = torch.cat([weight.flatten() for weight in weights])
    first = weights[0].numel()
    padded["w13_weight"] = pool[:first].view(weights[0].shape)
    padded["w2_weight"] = pool[first:].view(weights[1].shape)
    apply(padded, decision)
    found = [stamp_of(padded[role]) for role in ("w13_weight", "w2_weight")]
    assert [stamp.role for stamp in found if stamp] == ["w13_weight", "w2_weight"]
    assert stamp_of(pool) is None


def test_what_stands_in_the_target_has_its_stamp_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two assignments no bytes are without a stamp.

    Another thread, or an interrupted process, would see them.
    """
    decision = decide("fp4x2")

    class Watched(dict[str, torch.Tensor]):
        def __setitem__(self, role: str, tensor: torch.Tensor) -> None:
            assert stamp_of(tensor) is not None
            super().__setitem__(role, tensor)

    apply(Watched(plain_tensors(decision)), decision)


def test_exchanged_tensors_are_not_taken_for_each_other() -> None:
    decision = decide("fp4x2", hidden_size=256, intermediate_size=256)
    apply(tensors := plain_tensors(decision), decision)
    tensors["w13_weight"], tensors["w2_weight"] = tensors["w2_weight"], tensors["w13_weight"]
    for use in (
        lambda: apply(tensors, decision, again="skip"),
        lambda: inverse(tensors),
        lambda: expert_view(tensors, "w13_weight", 0),
    ):
        with pytest.raises(LayoutError, match=r"w13_weight (is|holds what was) laid out"):
            use()


def test_memory_that_was_freed_under_a_stamp_has_none() -> None:
    decision = decide("fp4x2")
    apply(tensors := plain_tensors(decision), decision)
    weight = tensors["w13_weight"].view(torch.uint8)
    before, storage = weight.clone(), weight.untyped_storage()
    size = storage.nbytes()
    storage.resize_(0)
    assert stamp_of(weight) is None
    storage.resize_(size)
    assert stamp_of(weight) is None or weight.equal(before)  # the memory may be another layer's, with the same bytes
    assert stamp_of(tensors["w2_weight"]) is not None


def test_memory_that_becomes_shared_keeps_its_stamp() -> None:
    decision = decide("fp4x2")
    apply(tensors := plain_tensors(decision), decision)
    bytes_before = tensors["w13_weight"].view(torch.uint8).clone()
    tensors["w13_weight"].share_memory_()
    assert stamp_of(tensors["w13_weight"]) is not None
    assert tensors["w13_weight"].view(torch.uint8).equal(bytes_before)


def test_the_digest_is_read_apart_from_the_stamp_wherever_it_stands() -> None:
    tensors = plain_tensors(decide("fp4x2"))
    apply(tensors, decide("fp4x2"))
    bare = stamp_of(tensors["w13_weight"])
    assert bare is not None
    digests = [f"sum64:{number:032x}" for number in range(3)]
    texts = [replace(bare, digest=digest).to_text() for digest in digests]
    for text, digest in zip(texts, digests, strict=True):
        first = json.dumps({"digest": digest, **json.loads(bare.to_text().replace(',"digest":null', ""))})
        twice = '{"digest":"' + digests[0] + '",' + text[1:]  # the last one counts, as in all JSON
        for written in (text, first, twice, text + " " * 5000):
            found, apart = Stamp.split_text(written)
            assert (found, found.digest, apart) == (bare, None, digest)
            assert Stamp.from_text(written).digest == digest
    assert Stamp.split_text(bare.to_text()) == (bare, None)
    for damaged in (texts[0].replace("sum64", "sum65"), texts[0][:-1], texts[0].replace('"shape":[', '"shape":["x",')):
        with pytest.raises(LayoutError, match="not a stamp"):
            Stamp.split_text(damaged)
