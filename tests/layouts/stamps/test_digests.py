"""Fingerprints show what they promise, and digests every single byte."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from preshuffle.layouts import (
    apply,
    begin_reload,
    finish_reload,
    inverse,
    relayout,
    stamp_of,
    stamps_from_metadata,
    stamps_to_metadata,
)
from preshuffle.layouts.stamps.digests import (
    digest_file,
    digest_memory,
    digest_of_sums,
    fingerprint,
    is_uniform,
    part_edges,
    pieces_of,
    row_sums_of_file,
)
from preshuffle.registry import LayoutError
from support.tensors.moe import decide, in_padded_buffers, plain_tensors
from support.tensors.padded_layer import Tensors, raw, state_of

DECISION: Final = decide("fp4x2", hidden_size=512, intermediate_size=1024, num_experts=8)
WEIGHT: Final = "w13_weight"
SIZES: Final = [1, 7, 8, 511, 512, 4099, 65536, (1 << 20) - 1, 1 << 20, (1 << 20) + 5, 3 << 20]


def memory(nbytes: int) -> Any:
    return np.random.default_rng(nbytes).integers(0, 256, nbytes + 16, np.uint8)


@pytest.mark.parametrize("nbytes", SIZES)
@pytest.mark.parametrize("begin", [0, 3, 8])
def test_a_digest_is_of_every_byte(nbytes: int, begin: int, tmp_path: Path) -> None:
    data = memory(nbytes)
    storage = torch.from_numpy(data).untyped_storage()
    (tmp_path / "data").write_bytes(data.tobytes())
    before = digest_memory(storage, begin, nbytes)
    assert before == digest_file(tmp_path / "data", (begin, begin + nbytes))
    for place in {begin, begin + nbytes // 3, begin + nbytes - 1}:
        data[place] ^= 64
        assert digest_memory(storage, begin, nbytes) != before
        data[place] ^= 64
    data[begin + nbytes] ^= 1  # beside the bytes
    assert digest_memory(storage, begin, nbytes) == before
    assert digest_file(tmp_path / "data", (begin, begin + nbytes + 100)) != before  # past the end of the file


@pytest.mark.parametrize("nbytes", [0, *SIZES])
@pytest.mark.parametrize("largest", [1, 1 << 15, 100_000, 1 << 30])
def test_a_digest_is_put_together_of_pieces(nbytes: int, largest: int, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(memory(nbytes).tobytes()[:nbytes])
    pieces = pieces_of(nbytes, largest)
    assert [begin for begin, _ in pieces[1:]] == [end for _, end in pieces[:-1]]
    assert (pieces[0][0], pieces[-1][1]) == (0, nbytes)
    assert all(end - begin <= max(largest, 1 << 15) for begin, end in pieces)
    sums = [row_sums_of_file(path, piece) for piece in pieces]
    assert digest_of_sums(sums, nbytes) == digest_file(path, (0, nbytes))


def test_a_digest_leaves_the_storage_resizable() -> None:
    """An engine that frees weights by ``resize_(0)`` still can, and the memory is torch's own as before."""
    storage = torch.ones(1 << 16, dtype=torch.uint8).untyped_storage()
    digest_memory(storage, 0, storage.nbytes())
    assert storage.resizable()


def test_what_is_cut_or_longer_has_another_digest() -> None:
    storage = torch.zeros(4096, dtype=torch.uint8).untyped_storage()
    assert len({digest_memory(storage, 0, nbytes) for nbytes in (0, 1, 8, 512, 4096)}) == 5


@pytest.mark.parametrize("nbytes", SIZES)
@pytest.mark.parametrize("begin", [0, 5])
def test_a_fingerprint_sees_every_run_that_it_promises(nbytes: int, begin: int) -> None:
    data = memory(nbytes)
    storage = torch.from_numpy(data).untyped_storage()
    before = fingerprint(storage, begin, nbytes)
    edges = part_edges(nbytes)
    assert (int(edges[0]), len(edges)) == (0, len(before) + 1)
    assert int(edges[-1]) in (nbytes, nbytes // 8 * 8)
    length = 1 if nbytes <= 1 << 20 else -(-nbytes // 1024)
    for place in np.random.default_rng(1).integers(0, nbytes - length + 1, 50):
        run = data[begin + place : begin + place + length]
        run ^= 17
        changed = (fingerprint(storage, begin, nbytes) != before).nonzero().view(-1)
        run ^= 17
        assert len(changed)
        assert all(edges[part] < place + length and place < edges[part + 1] for part in changed.tolist())
    assert torch.equal(fingerprint(storage, begin, nbytes), before)


@pytest.mark.parametrize("nbytes", [600, 2 << 20])
def test_bytes_that_are_all_the_same_are_uniform(nbytes: int) -> None:
    storage = torch.full((nbytes,), 7, dtype=torch.uint8).untyped_storage()
    assert is_uniform(storage, 0, nbytes)
    assert not is_uniform(torch.from_numpy(memory(nbytes)).untyped_storage(), 0, nbytes)


def plain_layer(seed: int = 0) -> Tensors:
    """A plain layer with weights of more than a MiB."""
    plain = plain_tensors(DECISION, seed=seed)
    plain |= {role: plain[role].float() for role in ("w13_bias", "w2_bias")}
    return in_padded_buffers(plain, DECISION)


def laid_layer() -> Tensors:
    apply(tensors := plain_layer(), DECISION)
    assert tensors[WEIGHT].nbytes > 1 << 20
    return tensors


def mapped(folder: Path, tensors: Tensors) -> Tensors:
    for role, tensor in tensors.items():
        (folder / role).write_bytes(tensor.view(torch.uint8).numpy().tobytes())
    return {
        role: torch.from_file(str(folder / role), shared=True, size=tensor.numel(), dtype=tensor.dtype).view(
            tensor.shape
        )
        for role, tensor in tensors.items()
    }


def laid_in_files(folder: Path) -> Tensors:
    apply(tensors := mapped(folder, plain_layer()), DECISION)
    return tensors


def reloaded_in_files(folder: Path) -> Tensors:
    tensors = laid_in_files(folder)
    begin_reload(tensors)
    for role, tensor in plain_layer(1).items():
        raw(tensors[role].data).copy_(raw(tensor))
    finish_reload(tensors, DECISION)
    return tensors


def mapped_privately(folder: Path) -> Tensors:
    return {
        role: torch.from_file(str(folder / role), shared=False, size=tensor.numel(), dtype=tensor.dtype).view(
            tensor.shape
        )
        for role, tensor in laid_in_files(folder).items()
    }


def stamped_from_a_header(folder: Path) -> Tensors:
    laid = laid_layer()
    named = {role: raw(tensor) if "weight" in role else tensor for role, tensor in laid.items()}
    save_file(named, folder / "layer.safetensors", stamps_to_metadata(laid))
    with safe_open(folder / "layer.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        stamps_from_metadata(tensors, file.metadata())
    return tensors


def copied(make: Callable[[Tensors], Tensors]) -> Callable[[Path], Tensors]:
    def work(folder: Path) -> Tensors:
        copies = make(laid_layer())
        assert {state_of(tensor) for tensor in copies.values()} == {"applied"}
        return copies

    return work


KNOWN_WHOLE: dict[str, Callable[[Path], Tensors]] = {
    "files": laid_in_files,
    "files reloaded": reloaded_in_files,
    "private mapping": mapped_privately,
    "header": stamped_from_a_header,
    "deepcopy": copied(copy.deepcopy),
    "pickle": copied(lambda tensors: pickle.loads(pickle.dumps({role: raw_kept(t) for role, t in tensors.items()}))),
}


def raw_kept(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that pickle takes (not every torch pickles fp4), with what goes along with it."""
    from preshuffle.layouts.stamps import hand_over_stamps

    view = raw(tensor) if tensor.dtype != torch.float32 else tensor
    hand_over_stamps(view)
    return view


@pytest.mark.parametrize("make", KNOWN_WHOLE.values(), ids=KNOWN_WHOLE)
def test_no_byte_changes_unseen_before_bytes_are_moved(make: Callable[[Path], Tensors], tmp_path: Path) -> None:
    tensors = make(tmp_path)
    assert {state_of(tensor) for tensor in tensors.values()} == {"applied"}
    array = raw(tensors[WEIGHT]).numpy().reshape(-1)
    array[1_000_003] ^= 1
    before = array.copy()
    for refuse in (
        lambda: inverse(tensors),
        lambda: relayout(tensors, decide("bf16", hidden_size=512, intermediate_size=1024, num_experts=8)),
        lambda: apply(tensors, DECISION, again="skip"),
        lambda: apply(tensors, DECISION),
    ):
        with pytest.raises(LayoutError, match=r"written to after it was laid out|does not match the bytes"):
            refuse()
    assert (array == before).all()
    array[1_000_003] ^= 1
    inverse(tensors)


def test_a_header_is_of_every_byte() -> None:
    laid = laid_layer()
    metadata = stamps_to_metadata(laid)
    copies = {role: tensor.clone() for role, tensor in laid.items()}
    raw(copies[WEIGHT]).view(-1)[1_000_003] ^= 1
    with pytest.raises(LayoutError, match="w13_weight does not hold the bytes that its stamp says"):
        stamps_from_metadata(copies, metadata)
    assert all(stamp_of(tensor) is None for tensor in copies.values())


def test_other_digests_are_no_stamp() -> None:
    metadata = stamps_to_metadata(laid := laid_layer())
    text = metadata[f"preshuffle.{WEIGHT}"].replace("sum64:", "")
    with pytest.raises(LayoutError, match="not a stamp"):
        stamps_from_metadata(laid, {f"preshuffle.{WEIGHT}": text})
