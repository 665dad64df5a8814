"""Shared memory: stamps go to other processes, and nothing stays behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from preshuffle.layouts import apply, inverse, stamp_of
from preshuffle.layouts.stamps.inode_marks import marks_shared_memory
from preshuffle.registry import LayoutError
from support.tensors.padded_layer import DECISION, Tensors, own_storage_layer

SHARED = Path("/dev/shm")
needs_attributes = pytest.mark.skipif(not marks_shared_memory(), reason="this kernel's shared memory has no attributes")


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    yield
    assert not [path.name for path in SHARED.glob("*.preshuffle*")]


@contextmanager
def strategy(name: str) -> Iterator[None]:
    before = mp.get_sharing_strategy()
    mp.set_sharing_strategy(name)
    try:
        yield
    finally:
        mp.set_sharing_strategy(before)


def seen_by_child(queue: Any, tensors: Tensors) -> None:
    queue.put([getattr(stamp_of(tensor), "layout", None) for tensor in tensors.values()])


def applied_by_child(queue: Any, tensors: Tensors) -> None:
    apply(tensors, DECISION)
    queue.put([getattr(stamp_of(tensor), "layout", None) for tensor in tensors.values()])


def run_child(work: Callable[[Any, Tensors], None], tensors: Tensors) -> list[str | None]:
    """Run it in a process that has nothing of this one's memory; torch is imported once for all of them."""
    context: Any = mp.get_context("forkserver")
    context.set_forkserver_preload(["torch", "preshuffle.layouts.loader", "preshuffle.layouts.stamps"])
    queue = context.Queue()
    child = context.Process(target=work, args=(queue, tensors))
    child.start()
    found: list[str | None] = queue.get(timeout=120)
    child.join(60)
    assert child.exitcode == 0
    return found


@needs_attributes
@pytest.mark.parametrize("name", sorted(mp.get_all_sharing_strategies()))
def test_stamps_go_to_the_other_process_and_back(name: str) -> None:
    wanted = [decided.layout for decided in DECISION.tensors.values()]
    with strategy(name):
        tensors = {role: tensor.share_memory_() for role, tensor in own_storage_layer().items()}
        assert run_child(applied_by_child, tensors) == wanted
        assert [getattr(stamp_of(tensors[role]), "layout", None) for role in DECISION.tensors] == wanted
        with pytest.raises(LayoutError, match="w13_weight is laid out already"):
            apply(tensors, DECISION)
        inverse(tensors)
        assert run_child(seen_by_child, tensors) == [None] * len(wanted)
        assert all(tensor.equal(own_storage_layer()[role]) for role, tensor in tensors.items())


@needs_attributes
@pytest.mark.parametrize("name", sorted(mp.get_all_sharing_strategies()))
def test_what_is_laid_out_before_it_is_shared_is_known(name: str) -> None:
    with strategy(name):
        apply(tensors := own_storage_layer(), DECISION)
        shared = {role: tensors[role].view(torch.uint8) for role in ("w13_weight", "w2_weight")}
        for tensor in shared.values():
            tensor.share_memory_()
        assert all(getattr(stamp_of(tensor), "layout", None) == "sep16" for tensor in shared.values())
        assert run_child(seen_by_child, shared) == ["sep16", "sep16"]


def test_pythons_shared_memory_has_no_file_beside_it() -> None:
    plain = own_storage_layer()
    blocks, tensors = [], {}
    for role, tensor in plain.items():
        blocks.append(shared_memory.SharedMemory(create=True, size=tensor.nbytes))
        array = np.ndarray((tensor.nbytes,), np.uint8, blocks[-1].buf)
        tensors[role] = torch.from_numpy(array).view(tensor.dtype).view(tensor.shape)
        tensors[role].copy_(tensor)
    apply(tensors, DECISION)
    assert {stamp_of(tensor).state for tensor in tensors.values()} == {"applied"}  # type: ignore[union-attr]
    if marks_shared_memory():
        again = shared_memory.SharedMemory(blocks[0].name)
        other = torch.from_numpy(np.ndarray((plain["w13_weight"].nbytes,), np.uint8, again.buf))
        assert stamp_of(other) is not None
        other.zero_()
        with pytest.raises(LayoutError, match="does not match the bytes"):
            stamp_of(tensors["w13_weight"].view(torch.uint8))
        del other
    inverse({role: tensors[role] for role in tensors if role.startswith("w2")})
    names = [block.name for block in blocks]
    del tensors, array
    for block in blocks:
        block.unlink()
    assert not [name for name in names if list(SHARED.glob(f"{name}*"))]
