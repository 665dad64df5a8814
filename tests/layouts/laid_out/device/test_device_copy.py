"""A rank's tensors on a device: read by several threads, complete, checked as they arrived."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from preshuffle.layouts import inverse
from preshuffle.layouts.laid_out import LaidOutError, device_copy, lay_out_checkpoint, open_laid_out
from preshuffle.layouts.laid_out.device_copy import DeviceCopier
from preshuffle.layouts.laid_out.files.manifest import rank_file
from preshuffle.layouts.stamps import verified_stamp_of
from support.tensors.laid_out import checkpoint_with_others, flat

A4W4: dict[str, Any] = {"arch": "gfx950", "activation_dtype": "fp4x2", "tp": 2}
CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laid-out")
    lay_out_checkpoint(checkpoint_with_others(folder / "checkpoint"), folder / "out", **A4W4)
    return folder / "out"


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_PIECE": 1000, "_FIRST": 250}.items():
        monkeypatch.setattr(device_copy, name, value)


def file_of(folder: Path, nbytes: int) -> tuple[Path, torch.Tensor]:
    data = torch.randint(0, 256, (nbytes,), dtype=torch.uint8)
    path = folder / "data"
    path.write_bytes(data.numpy().tobytes())
    return path, data


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("inference", [False, True])
def test_tensors_of_any_size_and_place_arrive(device: str, inference: bool, tmp_path: Path) -> None:
    path, data = file_of(tmp_path, 40_000)
    copier = DeviceCopier(torch.device(device))
    places = {3: (7,), 12: (2, 4, 111), 5000: (30_001,), 200: (0,), 39_999: (1,)}
    for _ in range(2):  # the second time threads and buffers are there
        with torch.inference_mode(inference):
            tensors = {begin: torch.empty(shape, dtype=torch.uint8, device=device) for begin, shape in places.items()}
            copier.fill(path, [(tensor, begin) for begin, tensor in tensors.items()])
            wide = torch.empty(3, 5, dtype=torch.bfloat16, device=device)
            copier.fill(path, [(wide, 16)])
        for begin, tensor in tensors.items():
            assert tensor.cpu().view(-1).equal(data[begin : begin + tensor.numel()])
        assert flat(wide.cpu()).equal(data[16:46])


@pytest.mark.parametrize("device", DEVICES)
def test_a_file_that_ends_early_or_is_gone_is_an_error(device: str, tmp_path: Path) -> None:
    path, data = file_of(tmp_path, 20_000)
    copier = DeviceCopier(torch.device(device))
    tensor = torch.empty(20_000, dtype=torch.uint8, device=device)
    with pytest.raises(LaidOutError, match="data: ends before its tensors do"):
        copier.fill(path, [(tensor, 1)])
    with pytest.raises(LaidOutError, match="gone: cannot be read: No such file"):
        copier.fill(tmp_path / "gone", [(tensor, 0)])
    copier.fill(path, [(tensor, 0)])  # and it can be used again
    assert tensor.cpu().equal(data)


@pytest.mark.parametrize("device", DEVICES)
def test_a_copied_rank_is_the_mapped_one(made: Path, device: str) -> None:
    mapped, copied = open_laid_out(made, 1, **A4W4), copied_rank(made, device, 1)
    for layer in copied.layers:
        wanted, found = mapped.layer(layer), copied.layer(layer)
        assert list(found) == list(wanted)
        for name, tensor in found.items():
            other = wanted[name]
            assert (tensor.device.type, tensor.dtype, tensor.shape) == (device, other.dtype, other.shape)
            assert tensor.is_contiguous()
            assert flat(tensor.cpu()).equal(flat(other))
            assert verified_stamp_of(tensor) == verified_stamp_of(other)
            assert getattr(tensor, "is_shuffled", False) == getattr(other, "is_shuffled", False)
        roles = {name.rpartition(".")[2]: tensor for name, tensor in found.items()}
        plain = {name.rpartition(".")[2]: tensor for name, tensor in wanted.items()}
        inverse(roles, copied.decision(layer))
        inverse(plain, copied.decision(layer))
        assert all(flat(roles[role].cpu()).equal(flat(plain[role])) for role in plain)


@pytest.mark.parametrize("device", DEVICES)
def test_damage_is_noticed_in_what_arrived(made: Path, device: str, tmp_path: Path) -> None:
    rank = copied_rank(made, device, 0)
    path = made / rank_file(1, 0, 0)
    data = path.read_bytes()
    try:
        path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
        with pytest.raises(LaidOutError, match="does not hold what was written"):
            rank.layer(1)
        path.write_bytes(data[:-1])
        with pytest.raises(LaidOutError, match="is another file than the one that was opened"):
            rank.layer(1)
    finally:
        path.write_bytes(data)
    assert rank.layer(1)


def copied_rank(made: Path, device: str, number: int) -> Any:
    """A rank whose tensors are copied; a CPU would have them mapped."""
    rank = open_laid_out(made, number, device=device, **A4W4)
    if device == "cpu":
        rank._reader._copier = DeviceCopier(CPU)  # type: ignore[union-attr]
    return rank


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_copy_waits_for_what_still_reads_its_memory(tmp_path: Path) -> None:
    """The allocator gives the same memory again while a kernel of the current stream still reads it."""
    path, data = file_of(tmp_path, 1 << 20)
    copier = DeviceCopier(torch.device("cuda"))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        old = torch.full((1 << 20,), 7, dtype=torch.uint8, device="cuda")
        seen, address = torch.zeros_like(old), old.data_ptr()
        torch.cuda._sleep(200_000_000)
        seen.copy_(old)
        del old
        new = torch.empty(1 << 20, dtype=torch.uint8, device="cuda")
        assert new.data_ptr() == address
        copier.fill(path, [(new, 0)])
    torch.cuda.synchronize()
    assert bool((seen == 7).all())
    assert new.cpu().equal(data)
