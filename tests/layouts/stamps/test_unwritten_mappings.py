"""Private mappings of files whose fingerprints are taken when somebody asks."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
import torch

from preshuffle.layouts import Stamp, apply, expert_view, stamp_of
from preshuffle.layouts.stamps import StreamDigest, put_stamps, verified_stamp_of
from support.tensors.padded_layer import DECISION, own_storage_layer

LAID: Final = own_storage_layer()
apply(LAID, DECISION)
WEIGHT: Final = LAID["w13_weight"]
Change = Callable[[torch.Tensor, Path], None]
Ask = Callable[[torch.Tensor], Stamp | None]


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def stamp() -> Stamp:
    found = stamp_of(WEIGHT)
    assert found is not None
    return replace(found, digest=None)


def state_of(tensor: torch.Tensor, ask: Ask = stamp_of) -> str:
    found = ask(tensor)
    assert found is not None
    return found.state


def stamped_mapping(path: Path, *, digest: bool = True) -> torch.Tensor:
    path.write_bytes(bytes_of(WEIGHT).numpy().tobytes())
    return mapped(path, digest=digest)


def mapped(path: Path, *, digest: bool = True) -> torch.Tensor:
    shown = torch.from_file(str(path), shared=False, size=WEIGHT.numel() * WEIGHT.element_size(), dtype=torch.uint8)
    tensor = shown.view(WEIGHT.dtype).view(WEIGHT.shape)
    whole = StreamDigest()
    whole.update(bytes_of(WEIGHT))
    put_stamps([(tensor, stamp())], digests=[whole.text() if digest else None], unwritten=True)
    return tensor


def write_memory(tensor: torch.Tensor, path: Path) -> None:
    shown = bytes_of(tensor)
    ctypes.memset(shown.data_ptr(), 255 - int(shown[0]), shown.numel() // 2)  # unseen by torch


def write_file(tensor: torch.Tensor, path: Path) -> None:
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(bytes(path.stat().st_size // 2))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def touch(tensor: torch.Tensor, path: Path) -> None:
    os.utime(path, ns=(1, 1))


def remove(tensor: torch.Tensor, path: Path) -> None:
    path.unlink()


def leave(tensor: torch.Tensor, path: Path) -> None:
    assert path.exists()


@pytest.mark.parametrize("asked", [False, True], ids=["never-asked", "asked-before"])
@pytest.mark.parametrize(
    ("change", "digest", "state"),
    [
        (leave, True, "applied"),
        (leave, False, "applied"),
        (write_memory, True, "unknown"),
        (write_memory, False, "unknown"),
        (write_file, True, "unknown"),
        (touch, True, "applied"),
        (remove, True, "applied"),
    ],
)
def test_a_stamp_holds_as_long_as_the_bytes_do(
    tmp_path: Path, change: Change, digest: bool, state: str, asked: bool
) -> None:
    path = tmp_path / "weight"
    tensor = stamped_mapping(path, digest=digest)
    if asked:
        assert stamp_of(tensor) == stamp()
    change(tensor, path)
    for ask in (stamp_of, verified_stamp_of, stamp_of):
        assert state_of(tensor, ask) == state


@pytest.mark.parametrize("change", [touch, remove])
def test_nothing_is_known_without_file_and_digest(tmp_path: Path, change: Change) -> None:
    path = tmp_path / "weight"
    tensor = stamped_mapping(path, digest=False)
    change(tensor, path)
    assert state_of(tensor) == "unknown"


def test_bytes_beside_a_lent_expert_are_compared_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "weight"
    tensor = stamped_mapping(path)
    view = expert_view({"w13_weight": tensor}, "w13_weight", 0)
    view.view(torch.uint8).zero_()
    path.unlink()
    assert state_of(tensor) == "applied"
    write_memory(tensor[1:], path)
    assert state_of(tensor) == "unknown"


def test_another_mapping_at_the_same_address_has_no_stamp(tmp_path: Path) -> None:
    path = tmp_path / "weight"
    tensor = stamped_mapping(path)
    address = tensor.data_ptr()
    del tensor
    size = WEIGHT.numel() * WEIGHT.element_size()
    again = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    assert stamp_of(again) is None, f"at {again.data_ptr():x}, before at {address:x}"
