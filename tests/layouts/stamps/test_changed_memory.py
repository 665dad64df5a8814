"""Bytes that were written to since they were stamped are noticed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch.utils.dlpack import from_dlpack

from preshuffle.layouts import (
    apply,
    apply_layout,
    begin_reload,
    describe,
    expert_view,
    finish_reload,
    inverse,
    invert_layout,
    relayout,
    retag,
    stamp_of,
    stamps_from_metadata,
    stamps_to_metadata,
    write_expert,
)
from preshuffle.layouts.loader import AITER_TAG
from preshuffle.registry import LayoutError
from support.tensors.moe import decide, plain_tensors
from support.tensors.padded_layer import DECISION, Tensors, laid_layer, plain_layer, raw, state_of

WEIGHT: Final = "w13_weight"


def load_state_dict(tensor: torch.Tensor, plain: torch.Tensor) -> None:
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(raw(tensor), requires_grad=False)
    module.load_state_dict({"weight": plain})


def copy_memory(tensor: torch.Tensor, plain: torch.Tensor) -> None:
    ctypes.memmove(tensor.data_ptr(), plain.data_ptr(), plain.nbytes)


WRITES: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "copy_": lambda tensor, plain: raw(tensor).copy_(plain),
    "data.copy_": lambda tensor, plain: raw(tensor.data).copy_(plain),
    "parameter of data": lambda tensor, plain: raw(torch.nn.Parameter(tensor.data, requires_grad=False)).copy_(plain),
    "load_state_dict": load_state_dict,
    "zero_": lambda tensor, plain: raw(tensor).zero_(),
    "data.zero_": lambda tensor, plain: raw(tensor.data).zero_(),
    "fill_ of a view": lambda tensor, plain: raw(tensor)[1:].fill_(3),
    "one byte": lambda tensor, plain: raw(tensor)[0, 0, 0].add_(1),
    "set item": lambda tensor, plain: raw(tensor).__setitem__((3, 5, 7), raw(tensor)[3, 5, 7] ^ 1),
    "storage copy_": lambda tensor, plain: tensor.untyped_storage().copy_(plain.untyped_storage()),
    "storage fill_": lambda tensor, plain: tensor.untyped_storage().__setitem__(slice(None), 9),
    "numpy": lambda tensor, plain: raw(tensor).numpy().__setitem__(..., plain.numpy()),
    "one expert in numpy": lambda tensor, plain: raw(tensor).numpy().__setitem__(2, plain.numpy()[2]),
    "memmove": copy_memory,
    "dlpack": lambda tensor, plain: from_dlpack(raw(tensor)).copy_(plain),
    "frombuffer": lambda tensor, plain: torch.frombuffer(
        (ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr()), dtype=torch.uint8
    ).copy_(plain.view(-1)),
    "inference mode": lambda tensor, plain: in_inference_mode(tensor, plain),
    "out=": lambda tensor, plain: torch.bitwise_xor(raw(tensor), 1, out=raw(tensor)),
    "one byte in numpy": lambda tensor, plain: (
        raw(tensor).numpy().__setitem__((3, 901, 77), int(raw(tensor)[3, 901, 77]) ^ 1)
    ),
    "one byte of data": lambda tensor, plain: raw(tensor.data).view(-1)[12345].bitwise_xor_(128),
    "the last byte by memset": lambda tensor, plain: ctypes.memset(
        tensor.data_ptr() + tensor.nbytes - 1, 255 - int(raw(tensor).view(-1)[-1]), 1
    ),
    "two words exchanged": lambda tensor, plain: exchange_words(raw(tensor).numpy().reshape(-1).view(np.int64)),
    "two experts exchanged": lambda tensor, plain: raw(tensor.data).copy_(raw(tensor).clone()[[1, 0, 2, 3]]),
}


def exchange_words(words: Any) -> None:
    one, other = next((one, one + 1) for one in range(1000, 2000) if words[one] != words[one + 1])
    words[[one, other]] = words[[other, one]]


def in_inference_mode(tensor: torch.Tensor, plain: torch.Tensor) -> None:
    with torch.inference_mode():
        raw(tensor).copy_(plain)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_is_noticed_and_nothing_is_claimed_or_destroyed(
    write: Callable[[torch.Tensor, torch.Tensor], object],
) -> None:
    tensors, plain = laid_layer(), plain_layer(seed=5)[WEIGHT]
    assert state_of(tensors[WEIGHT]) == "applied"
    write(tensors[WEIGHT], plain)
    stamp = stamp_of(tensors[WEIGHT])
    assert stamp is not None
    assert (stamp.state, stamp.layout, stamp.is_shuffled) == ("unknown", "unknown", False)
    before = {role: raw(tensor).clone() for role, tensor in tensors.items()}
    for refuse in (
        lambda: inverse(tensors),
        lambda: inverse(tensors, DECISION),
        lambda: relayout(tensors, decide("bf16")),
        lambda: apply(tensors, DECISION),
        lambda: apply(tensors, DECISION, again="skip"),
        lambda: write_expert(tensors, 0, WEIGHT, plain[0, :8, :80]),
        lambda: expert_view(tensors, WEIGHT, 0),
        lambda: invert_layout(raw(tensors[WEIGHT]), "sep16"),
        lambda: apply_layout(raw(tensors[WEIGHT]), "sep16"),
    ):
        with pytest.raises(LayoutError, match=r"written to after it was laid out|is not laid out as") as error:
            refuse()
        assert "invert it" not in str(error.value)
    assert all(raw(tensors[role]).equal(before[role]) for role in tensors)
    seen = describe(tensors, DECISION).tensors["w13_weight"]
    assert (seen.layout, seen.is_shuffled) == (None, None)
    delattr(tensors[WEIGHT], AITER_TAG)
    assert retag(tensors) == ()
    assert f"preshuffle.{WEIGHT}" not in stamps_to_metadata(tensors)


def test_the_way_back_is_a_reload() -> None:
    tensors, fresh = laid_layer(), plain_layer(seed=5)
    wanted = laid_layer(seed=5)
    for role, tensor in tensors.items():
        raw(tensor.data).view(-1).copy_(raw(fresh[role].float() if "bias" in role else fresh[role]).view(-1))
    with pytest.raises(LayoutError, match="Call begin_reload, load its plain rows"):
        apply(tensors, DECISION)
    begin_reload(tensors)
    finish_reload(tensors, DECISION)
    assert all(raw(tensors[role]).equal(raw(wanted[role])) for role in wanted)
    assert state_of(tensors[WEIGHT]) == "applied"


def test_bytes_that_come_back_are_known_again() -> None:
    """Weights that go to the host and back (a sleeping engine) are what they were."""
    tensors = laid_layer()
    kept = raw(tensors[WEIGHT]).clone()
    raw(tensors[WEIGHT].data).zero_()
    assert state_of(tensors[WEIGHT]) == "unknown"
    raw(tensors[WEIGHT].data).copy_(kept)
    assert state_of(tensors[WEIGHT]) == "applied"


def test_what_a_counter_has_shown_stays_known_when_its_tensor_is_gone() -> None:
    tensors = laid_layer()
    other = tensors[WEIGHT].detach()
    tensors[WEIGHT].view(torch.uint8)[0, 0, 0] ^= 1
    assert state_of(tensors[WEIGHT]) == "unknown"
    tensors.clear()
    assert state_of(other) == "unknown"


def test_a_lazy_clone_has_memory_of_its_own() -> None:
    tensors = laid_layer()
    weight = raw(tensors[WEIGHT])
    clone = torch._lazy_clone(weight)
    weight.zero_()
    assert (state_of(weight), state_of(tensors[WEIGHT])) in ((None, None), ("unknown", "unknown"))
    assert state_of(clone) in (None, "applied")
    assert clone.any()
    other = torch._lazy_clone(clone)
    other.zero_()
    assert state_of(other) in (None, "unknown")


def test_writes_beside_the_bytes_are_no_change() -> None:
    plain = plain_layer()
    pool = torch.zeros(plain[WEIGHT].numel() + 4096, dtype=torch.uint8)
    pool[4096:] = plain[WEIGHT].view(-1)
    tensors = {**plain, WEIGHT: pool[4096:].view(plain[WEIGHT].shape)}
    apply(tensors, DECISION)
    pool[:4096] = 7
    assert state_of(tensors[WEIGHT]) == "applied"
    pool[5000:].zero_()
    assert state_of(tensors[WEIGHT]) == "unknown"


def reload(tensors: Tensors) -> None:
    begin_reload(tensors)
    finish_reload(tensors, DECISION)


OWN: dict[str, Callable[[Tensors], object]] = {
    "write_expert": lambda tensors: write_expert(tensors, 1, WEIGHT, plain_tensors(DECISION, seed=8)[WEIGHT][2]),
    "a part of an expert": lambda tensors: write_expert(
        tensors, 1, WEIGHT, plain_tensors(DECISION, seed=8)[WEIGHT][2, :3], first_row=5
    ),
    "an expert's view": lambda tensors: raw(expert_view(tensors, WEIGHT, 1)).copy_(
        raw(expert_view(tensors, WEIGHT, 2)).clone()
    ),
    "experts' views at once": lambda tensors: [
        raw(expert_view(tensors, WEIGHT, to)).copy_(raw(expert_view(laid_layer(4), WEIGHT, to))) for to in range(4)
    ],
    "relayout": lambda tensors: relayout(tensors, decide("bf16")),
    "reload": lambda tensors: reload(tensors),
    "tags": lambda tensors: retag(tensors),
    "reads": lambda tensors: [raw(tensor).numpy().sum() for tensor in tensors.values()],
    "grad flag": lambda tensors: [tensor.requires_grad_(False) for tensor in tensors.values()],
    "share_memory_": lambda tensors: [tensor.share_memory_() for tensor in tensors.values()],
}


@pytest.mark.parametrize("use", OWN.values(), ids=OWN)
def test_the_product_keeps_its_stamps_true(use: Callable[[Tensors], object]) -> None:
    tensors = laid_layer()
    use(tensors)
    assert {state_of(tensor) for tensor in tensors.values()} == {"applied"}
    use(tensors)
    assert {state_of(tensor) for tensor in tensors.values()} == {"applied"}


def test_a_view_that_is_lent_hides_only_its_own_expert() -> None:
    tensors, plain = laid_layer(), plain_layer(seed=5)[WEIGHT]
    view = expert_view(tensors, WEIGHT, 1)
    raw(view).copy_(raw(expert_view(tensors, WEIGHT, 0)))
    assert state_of(tensors[WEIGHT]) == "applied"
    raw(tensors[WEIGHT].data)[2:].copy_(plain[2:])
    assert state_of(tensors[WEIGHT]) == "unknown"
    del view


ALIASES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "numpy": lambda tensor: torch.from_numpy(raw(tensor).numpy()),
    "numpy view": lambda tensor: torch.from_numpy(raw(tensor).numpy()[1:3]),
    "numpy bytes": lambda tensor: torch.from_numpy(raw(tensor).numpy().reshape(-1)[100:5000]),
    "dlpack": lambda tensor: from_dlpack(raw(tensor)),
    "numpy's dlpack": lambda tensor: from_dlpack(raw(tensor).numpy()),
    "frombuffer": lambda tensor: torch.frombuffer(
        (ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr()), dtype=torch.uint8
    ).view(tensor.shape),
    "as_tensor": lambda tensor: torch.as_tensor(raw(tensor).numpy()),
    "asarray": lambda tensor: torch.asarray(raw(tensor).numpy()),
}


@pytest.mark.parametrize("alias", ALIASES.values(), ids=ALIASES)
def test_other_storages_on_the_same_memory_are_known(alias: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = laid_layer()
    other = alias(tensors[WEIGHT])
    stamp = stamp_of(other)
    assert stamp is not None
    assert (stamp.state, stamp.layout) == ("applied", "sep16")
    with pytest.raises(LayoutError, match="laid out already"):
        apply_layout(other.reshape(-1)[:512].view(1, 32, 16), "plain")
    if other.shape == tensors[WEIGHT].shape:
        with pytest.raises(LayoutError, match="laid out already"):
            apply({**plain_layer(), WEIGHT: other}, DECISION)
    other.zero_()
    assert state_of(tensors[WEIGHT]) == state_of(other) == "unknown"


@pytest.mark.parametrize("alias", [ALIASES["numpy"], ALIASES["dlpack"], ALIASES["frombuffer"]])
def test_what_is_laid_out_under_another_storage_is_known(alias: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = plain_layer()
    kept = dict(tensors)
    others = {role: alias(tensor) if "weight" in role else tensor for role, tensor in tensors.items()}
    apply(others, DECISION)
    assert state_of(kept[WEIGHT]) == "applied"
    with pytest.raises(LayoutError, match="w13_weight is laid out already"):
        apply(kept, DECISION)
    inverse(others)
    assert stamp_of(kept[WEIGHT]) is None


def test_numpy_memory_outlives_its_storages() -> None:
    plain = plain_layer()
    arrays = {role: tensor.numpy().copy() for role, tensor in plain.items() if tensor.dtype == torch.uint8}
    rest = {role: tensor for role, tensor in plain.items() if role not in arrays}
    apply({**rest, **{role: torch.from_numpy(array) for role, array in arrays.items()}}, DECISION)
    again = {role: torch.from_numpy(array) for role, array in arrays.items()}
    assert {state_of(tensor) for role, tensor in again.items() if role.endswith("weight")} == {"applied"}
    with pytest.raises(LayoutError, match="laid out already"):
        apply({**plain_layer(), **again}, DECISION)


def test_memory_that_is_reused_is_no_stamp() -> None:
    """Neither torch's nor NumPy's allocator leads to a stamp of bytes that are gone, with equal or with other bytes."""
    for number in range(40):
        plain = {role: tensor.clone() for role, tensor in plain_layer(seed=number % 3).items()}
        arrays = {role: torch.from_numpy(tensor.numpy().copy()) for role, tensor in plain.items() if "bias" not in role}
        tensors = {**plain, **(arrays if number % 2 else {})}
        assert all(stamp_of(tensor) is None for tensor in tensors.values())
        apply(tensors, DECISION)
        del tensors, arrays, plain


def as_module(tensors: Tensors) -> torch.nn.Module:
    module = torch.nn.Module()
    for role, tensor in tensors.items():
        module.register_parameter(role, torch.nn.Parameter(tensor, requires_grad=False))
    return module


def test_a_header_goes_with_its_bytes_only() -> None:
    tensors, other = laid_layer(), laid_layer(seed=5)
    metadata = stamps_to_metadata(tensors)
    with pytest.raises(LayoutError, match="w13_weight does not hold the bytes that its stamp says"):
        stamps_from_metadata(plain_layer(), metadata)
    with pytest.raises(LayoutError, match="does not hold the bytes"):
        stamps_from_metadata({role: tensor.clone() for role, tensor in other.items() if "bias" not in role}, metadata)
    stamps_from_metadata(again := {role: raw(tensor).clone() if "weight" in role else tensor.clone()
                                   for role, tensor in tensors.items()}, metadata)  # fmt: skip
    assert {state_of(tensor) for tensor in again.values()} == {"applied"}


def test_skip_tags_what_stands_in_the_target() -> None:
    tensors = laid_layer()
    fresh = {role: tensor.detach() for role, tensor in tensors.items()}
    assert not hasattr(fresh[WEIGHT], AITER_TAG)
    result = apply(fresh, DECISION, again="skip")
    assert getattr(fresh[WEIGHT], AITER_TAG) is True
    assert result.tensors["w13_weight"].is_shuffled is True
    module = as_module({role: tensor.data for role, tensor in tensors.items()})
    apply(module, DECISION, again="skip")
    assert getattr(module.w2_weight, AITER_TAG) is True


@pytest.mark.parametrize("nbytes", [1, 7, 8, 9, 4095, 4096, 4097, 4104, 65536, 1 << 20])
def test_samples_in_memory_and_in_a_file_are_the_same(nbytes: int, tmp_path: Any) -> None:
    from preshuffle.layouts.stamps.samples import digest_of, sample_file, sample_memory

    data = np.random.default_rng(nbytes).integers(0, 256, nbytes + 5, np.uint8)
    (tmp_path / "data").write_bytes(data.tobytes())
    storage = torch.from_numpy(data).untyped_storage()
    for begin in (0, 3):
        extent = (begin, begin + nbytes)
        assert digest_of(sample_memory(storage, begin, nbytes)) == digest_of(sample_file(tmp_path / "data", extent))
