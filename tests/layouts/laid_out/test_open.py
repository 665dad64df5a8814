"""Engines map one rank: the bytes of ``apply``, stamped, and refused where the key does not match."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.dlpack import from_dlpack

from preshuffle.layouts import inverse, stamp_of
from preshuffle.layouts.laid_out import (
    LaidOutError,
    LaidOutFallbackWarning,
    StaleError,
    lay_out_checkpoint,
    open_laid_out,
    open_rank,
)
from preshuffle.layouts.laid_out.files.manifest import rank_file
from preshuffle.layouts.stamps import sample_memory, verified_stamp_of
from preshuffle.layouts.stamps.mapped import mapping_of
from support.tensors.laid_out import applied_one_by_one, checkpoint_with_others, contents, flat, query_of

A4W4: dict[str, Any] = {"arch": "gfx950", "activation_dtype": "fp4x2", "tp": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laid-out")
    lay_out_checkpoint(checkpoint_with_others(folder / "checkpoint"), folder / "out", **A4W4)
    return folder


def test_a_rank_is_what_apply_gives(made: Path) -> None:
    checkpoint = checkpoint_with_others(made / "again")
    query = query_of(checkpoint, **A4W4)
    decision = checkpoint.registry.resolve(query)
    before = contents(made / "out")
    for tp_rank, _, wanted in applied_one_by_one(checkpoint, query, decision, 1):
        rank = open_laid_out(made / "out", tp_rank, checkpoint=made / "checkpoint", **A4W4)
        assert (rank.layers, rank.from_checkpoint) == ((0, 1), False)
        found = {name.rpartition(".")[2]: tensor for name, tensor in rank.layer(1).items()}
        for role, tensor in found.items():
            assert (tensor.shape, tensor.dtype) == (wanted[role].shape, wanted[role].dtype)
            assert flat(tensor).equal(flat(wanted[role]))
            assert verified_stamp_of(tensor) == stamp_of(wanted[role])
            assert getattr(tensor, "is_shuffled", False) == getattr(wanted[role], "is_shuffled", False)
        inverse(found, rank.decision(1))
        assert flat(found["w13_weight"]).equal(flat(checkpoint.rank(1, query, tp_rank=tp_rank)["w13_weight"]))
    assert contents(made / "out") == before  # what the engine writes stays in its process
    assert len(list(open_laid_out(made / "out", (1, 0)))) == 12


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tp": 4}, "laid out for tp=2, ep=1; needed: 4, 1"),
        ({"activation_dtype": "bf16"}, "laid out by recipe mxfp4.sep16.*needed: recipe mxfp4.gui16"),
        ({"engine": "vllm", "activation_dtype": "bf16"}, "needed: recipe vllm.gpt-oss.gui16"),
    ],
)
def test_a_key_that_does_not_match_is_refused(made: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(StaleError, match=message):
        open_laid_out(made / "out", 0, **{**A4W4, **fields})
    with pytest.warns(LaidOutFallbackWarning, match="the checkpoint is read instead"):
        rank = open_laid_out(made / "out", 0, checkpoint=made / "checkpoint", fallback=True, **{**A4W4, **fields})
    assert rank.from_checkpoint
    assert rank.reason is not None
    tensors = rank.layer(0)
    assert stamp_of(tensors["model.layers.0.mlp.experts.w2_weight"]) is not None


def test_another_checkpoint_is_noticed(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "checkpoint", tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes().replace(b"self_attn", b"self_attm"))
    with pytest.raises(StaleError, match="another checkpoint"):
        open_laid_out(made / "out", 0, checkpoint=tmp_path / "checkpoint", **A4W4)


def test_damage_is_noticed(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "out", tmp_path / "out")
    path = tmp_path / "out" / "rank-tp0-ep0-layer-00001.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    rank = open_laid_out(tmp_path / "out", 0, **A4W4)
    with pytest.raises(LaidOutError, match="does not hold what was written"):
        rank.layer(1)
    rank.layer(0)
    path.write_bytes(data[:-1])
    with pytest.raises(LaidOutError, match="cut short"):
        open_laid_out(tmp_path / "out", 0, **A4W4)
    for rank_number in (2, -1, (0, 1)):
        with pytest.raises(LaidOutError, match="is not one of"):
            open_laid_out(made / "out", rank_number, **A4W4)
    with pytest.raises(LaidOutError, match="layer 7 has no experts"):
        open_laid_out(made / "out", 0).layer(7)


def test_layers_are_read_ahead_in_order_and_errors_come_where_they_belong(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "out", tmp_path / "out")
    rank = open_laid_out(tmp_path / "out", 0, **A4W4)
    layers = [name.split(".")[2] for name, _ in rank]
    assert layers == sorted(layers)
    assert set(layers) == {"0", "1"}
    path = tmp_path / "out" / rank_file(1, 0, 0)
    data = bytearray(path.read_bytes())
    data[-4096:] = bytes(255 - byte for byte in data[-4096:])
    path.write_bytes(data)
    found = iter(open_laid_out(tmp_path / "out", 0, **A4W4))
    assert [next(found)[0].split(".")[2] for _ in range(len(layers) // 2)] == ["0"] * (len(layers) // 2)
    with pytest.raises(LaidOutError, match="does not hold what was written"):
        next(found)


def sampled_layers(out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return of how many tensors of rank 0 samples are compared."""
    asked: list[int] = []

    def sample(storage: torch.UntypedStorage, begin: int, nbytes: int) -> torch.Tensor:
        asked.append(nbytes)
        return sample_memory(storage, begin, nbytes)

    with monkeypatch.context() as patch:
        patch.setattr(open_rank, "sample_memory", sample)
        tensors = list(open_laid_out(out, 0, **A4W4))
    assert len(asked) in (0, len(tensors))
    return len(asked)


def test_files_that_nobody_wrote_since_their_run_are_not_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, out = checkpoint_with_others(tmp_path / "checkpoint"), tmp_path / "out"
    lay_out_checkpoint(checkpoint, out, **A4W4)
    assert sampled_layers(out, monkeypatch) == 0
    lay_out_checkpoint(checkpoint, out, **A4W4)  # nothing is written but the indexes
    assert sampled_layers(out, monkeypatch) == 0
    shutil.copytree(out, tmp_path / "copy")
    assert sampled_layers(tmp_path / "copy", monkeypatch) == 12
    lay_out_checkpoint(checkpoint, tmp_path / "copy", **A4W4)  # another run's files, which this one has not read
    assert sampled_layers(tmp_path / "copy", monkeypatch) == 12
    path = out / rank_file(1, 0, 0)
    before = path.stat()
    with path.open("r+b") as stream:
        stream.seek(-before.st_size // 2, os.SEEK_END)
        stream.write(bytes(before.st_size // 2))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(LaidOutError, match="does not hold what was written"):
        list(open_laid_out(out, 0, **A4W4))


def test_a_file_that_was_written_after_opening_is_sampled(tmp_path: Path) -> None:
    checkpoint, out = checkpoint_with_others(tmp_path / "checkpoint"), tmp_path / "out"
    lay_out_checkpoint(checkpoint, out, **A4W4)
    rank = open_laid_out(out, 0, **A4W4)
    path = out / rank_file(0, 0, 0)
    with path.open("r+b") as stream:
        stream.seek(-path.stat().st_size // 2, os.SEEK_END)
        stream.write(bytes(path.stat().st_size // 2))
    with pytest.raises(LaidOutError, match="does not hold what was written"):
        rank.layer(0)


def mapped_files(folder: Path) -> set[str]:
    """Return the files of a folder that this process maps."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {Path(line.split(maxsplit=5)[5]).name for line in lines if str(folder) in line}


def test_a_mapping_goes_with_the_last_tensor_of_its_layer(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "out", tmp_path / "out")
    rank = open_laid_out(tmp_path / "out", 0, **A4W4)
    assert mapped_files(tmp_path) == set()
    first, second = rank.layer(0), rank.layer(1)
    assert mapped_files(tmp_path) == {rank_file(layer, 0, 0) for layer in (0, 1)}
    one = second.popitem()[1]
    del second
    first.clear()
    assert mapped_files(tmp_path) == {rank_file(1, 0, 0)}
    del one
    assert mapped_files(tmp_path) == set()
    for _name, _tensor in rank:
        pass
    del _tensor
    assert mapped_files(tmp_path) == set()


def test_a_layer_that_is_read_again_is_mapped_again(made: Path) -> None:
    rank = open_laid_out(made / "out", 0, **A4W4)
    name = "model.layers.0.mlp.experts.w2_weight"
    tensor = rank.layer(0)[name]
    before = flat(tensor).clone()
    flat(tensor).zero_()
    assert flat(rank.layer(0)[name]).equal(before)


def test_a_file_that_was_replaced_since_it_was_opened_is_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "out", tmp_path / "out")
    rank = open_laid_out(tmp_path / "out", 0, **A4W4)
    shutil.copyfile(tmp_path / "out" / rank_file(0, 1, 0), tmp_path / "out" / rank_file(0, 0, 0))
    with pytest.raises(LaidOutError, match="another file than the one that was opened"):
        rank.layer(0)
    rank.layer(1)
    (tmp_path / "out" / rank_file(1, 0, 0)).unlink()
    with pytest.raises(LaidOutError, match="cannot be mapped"):
        rank.layer(1)


def test_what_is_mapped_is_known_as_the_kernel_names_it(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "out", tmp_path / "out")
    path, target = tmp_path / "out" / rank_file(0, 0, 0), tmp_path / "elsewhere"
    path.rename(target)
    path.symlink_to(target)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    rank = open_laid_out(tmp_path / "link", 0, **A4W4)
    for layer in rank.layers:
        for tensor in rank.layer(layer).values():
            told = mapping_of(tensor)
            again = from_dlpack(tensor.view(torch.uint8))  # a storage of its own on the same bytes
            searched = mapping_of(again)
            assert told == searched is not None


def test_a_file_that_is_replaced_while_it_is_mapped_ahead_is_the_one_that_was_opened(
    made: Path, tmp_path: Path
) -> None:
    shutil.copytree(made / "out", tmp_path / "out")
    wanted = open_laid_out(made / "out", 0, **A4W4).layer(1)
    found = iter(open_laid_out(tmp_path / "out", 0, **A4W4))
    first = next(found)  # the second layer's file is mapped by now
    path = tmp_path / "out" / rank_file(1, 0, 0)
    other = tmp_path / "other"
    other.write_bytes(bytes(255 - byte for byte in path.read_bytes()))
    other.replace(path)
    tensors = dict([first, *found])
    assert all(torch.equal(flat(tensors[name]), flat(tensor)) for name, tensor in wanted.items())
