"""Stamps of memory-mapped files survive a killed process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from preshuffle.layouts import (
    apply,
    apply_layout,
    begin_reload,
    expert_view,
    finish_reload,
    inverse,
    invert_layout,
    relayout,
    stamp_of,
    write_expert,
)
from preshuffle.layouts.loader import single
from preshuffle.layouts.loader.result import AITER_TAG
from preshuffle.layouts.stamps.mapped import _query_addresses, _search_text
from preshuffle.registry import LayoutError
from support.tensors.moe import decide, in_padded_buffers, plain_tensors

TESTS = Path(__file__).parents[2]
DECISION = decide("fp4x2")

Tensors = dict[str, torch.Tensor]


def killed(folder: Path, rounds: int, seed: int) -> list[dict[str, Any]]:
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "support.tensors.kill_layouts", str(folder), str(rounds), str(seed)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_killed(folder: Path, rounds: int, seed: int, hit: set[str]) -> None:
    """Kill the process and check the file.

    ``hit`` are the works that surely break off half-way in so many rounds.
    """
    lines = killed(folder, rounds, seed)
    assert len(lines) == 4 * rounds
    assert [line for line in lines if line["lies"]] == []
    assert {line["mended"] for line in lines} <= {None, True}
    broken = Counter(line["work"] for line in lines if "broken" in line["claims"])
    assert hit <= set(broken), broken
    assert any(line["mended"] for line in lines)


def test_a_killed_process_leaves_old_bytes_or_says_that_they_are_broken(tmp_path: Path) -> None:
    check_killed(tmp_path, rounds=20, seed=1, hit={"apply", "inverse", "out"})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_killed_processes(seed: int, tmp_path: Path) -> None:
    check_killed(tmp_path, rounds=400, seed=seed, hit={"apply", "inverse", "write", "out"})


def in_files(folder: Path) -> Tensors:
    """Map a plain layer of the physical size from files.

    Biases are as the kernel wants them, so that all stay there.
    """
    plain = plain_tensors(DECISION)
    plain |= {role: plain[role].float() for role in ("w13_bias", "w2_bias")}
    padded = in_padded_buffers(plain, DECISION)
    for role, tensor in padded.items():
        (folder / role).write_bytes(tensor.view(torch.uint8).numpy().tobytes())
    return mapped(folder, padded)


def mapped(folder: Path, like: Tensors, *, shared: bool = True) -> Tensors:
    return {
        role: torch.from_file(str(folder / role), shared=shared, size=tensor.numel(), dtype=tensor.dtype).view(
            tensor.shape
        )
        for role, tensor in like.items()
    }


def test_the_next_process_knows_what_the_last_one_did(tmp_path: Path) -> None:
    tensors = in_files(tmp_path)
    before = {role: tensor.clone() for role, tensor in tensors.items()}
    apply(tensors, DECISION)
    again = mapped(tmp_path, before)
    assert {role: stamp_of(tensor) for role, tensor in again.items()} == {
        role: stamp_of(tensor) for role, tensor in tensors.items()
    }
    with pytest.raises(LayoutError, match=r"w13_weight is laid out already .*says .*w13_weight\.preshuffle"):
        apply(again, DECISION)
    inverse(again)
    assert all(again[role].equal(before[role]) for role in before)
    assert not list(tmp_path.glob("*.preshuffle"))
    assert stamp_of(tensors["w13_weight"].view(torch.uint8)) is None  # the other mapping of the same file


def test_a_reload_of_files_at_the_same_addresses(tmp_path: Path) -> None:
    tensors = in_files(tmp_path)
    plain = {role: tensor.clone() for role, tensor in tensors.items()}
    apply(tensors, DECISION)
    laid = {role: tensor.clone() for role, tensor in tensors.items()}
    later = mapped(tmp_path, plain)
    begin_reload(later)
    for role, tensor in mapped(tmp_path, plain).items():  # a third process sees it, too
        stamp = stamp_of(tensor)
        assert stamp is not None
        assert stamp.state == "reloading"
        tensor.copy_(plain[role])
    finish_reload(later, DECISION)
    assert all(later[role].view(torch.uint8).equal(laid[role].view(torch.uint8)) for role in plain)
    assert getattr(later["w13_weight"], AITER_TAG)


def test_numpy_maps_and_ranges_of_one_file(tmp_path: Path) -> None:
    """Two layers in one file have ranges of their own."""
    whole = in_files(tmp_path)
    total = b"".join((tmp_path / role).read_bytes() for role in whole)
    (tmp_path / "all").write_bytes(b"x" * 4096 + total)
    tensors: Tensors = {}
    at = 4096
    for role, tensor in whole.items():
        view = np.memmap(tmp_path / "all", np.uint8, "r+", at, (tensor.nbytes,))
        tensors[role] = torch.from_numpy(view).view(tensor.dtype).view(tensor.shape)
        at += tensor.nbytes
    apply(tensors, DECISION)
    record = json.loads((tmp_path / "all.preshuffle").read_text())
    ranges = [(entry["begin"], entry["end"]) for entry in record["bytes"]]
    assert len(ranges) == len(tensors)
    assert (ranges[0][0], ranges[-1][1]) == (4096, at)
    assert all(one[1] == other[0] for one, other in pairwise(ranges))


def test_both_ways_to_query_addresses_give_one_answer(tmp_path: Path) -> None:
    tensors = [*in_files(tmp_path).values(), torch.zeros(9), torch.zeros(9).share_memory_()]
    tensors.append(torch.from_numpy(np.memmap(tmp_path / "w13_weight", np.uint8, "c", 4096, (4096,))))
    addresses = [tensor.untyped_storage().data_ptr() for tensor in tensors]
    assert _query_addresses(addresses) == _search_text(addresses)
    last = _search_text(addresses)[-1]
    assert last is not None
    assert (last.path, last.offset, last.shared) == (tmp_path / "w13_weight", 4096, False)


def test_a_private_mapping_sees_the_record_and_leaves_it_alone(tmp_path: Path) -> None:
    tensors = in_files(tmp_path)
    plain = {role: tensor.clone() for role, tensor in tensors.items()}
    apply(tensors, DECISION)
    kept = (tmp_path / "w13_weight.preshuffle").read_bytes()
    private = mapped(tmp_path, plain, shared=False)
    inverse(private)
    assert private["w13_weight"].equal(plain["w13_weight"])
    assert stamp_of(private["w13_weight"]) is None
    assert (tmp_path / "w13_weight.preshuffle").read_bytes() == kept


def test_a_copy_is_known_and_a_new_file_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    (first := tmp_path / "first").mkdir()
    tensors = in_files(first)
    plain = {role: tensor.clone() for role, tensor in tensors.items()}
    apply(tensors, DECISION)
    shutil.copytree(first, second := tmp_path / "second")
    stamp = stamp_of(mapped(second, plain)["w2_weight"])
    assert stamp is not None
    assert stamp.layout == "sep16"
    (first / "w2_weight").unlink()
    (first / "w2_weight").write_bytes(bytes(plain["w2_weight"].nbytes))
    with pytest.raises(LayoutError, match=r"w2_weight\.preshuffle does not match the bytes of .*: remove it if"):
        apply(mapped(first, plain), DECISION)
    (first / "w2_weight").write_bytes(b"short")
    with pytest.raises(LayoutError, match="does not match the bytes"):
        stamp_of(torch.from_file(str(first / "w2_weight"), shared=True, size=5, dtype=torch.uint8))


DAMAGED = {
    "empty": "",
    "cut": "{",
    "list": "[]",
    "version": '{"version": 2, "inode": 1, "bytes": []}',
    "entry": '{"version": 1, "inode": 1, "bytes": [{}]}',
    "no stamp": '{"version": 1, "inode": 1, "bytes": [{"begin": 0, "end": 9, "digest": null, "stamp": {}}]}',
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_named(text: str, tmp_path: Path) -> None:
    tensors = in_files(tmp_path)
    (tmp_path / "w13_weight.preshuffle").write_text(text)
    with pytest.raises(LayoutError, match=r"w13_weight\.preshuffle"):
        apply(tensors, DECISION)


def test_a_record_that_cannot_be_written_stops_the_move(tmp_path: Path) -> None:
    tensors = in_files(tmp_path)
    before = tensors["w2_weight"].clone()
    (tmp_path / f"w2_weight.preshuffle.{os.getpid()}").mkdir()  # in the way of the draft
    with pytest.raises(LayoutError, match=r"w2_weight\.preshuffle cannot be written"):
        apply(tensors, DECISION)
    assert tensors["w2_weight"].equal(before)


def test_out_in_a_file_is_broken_until_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.randint(0, 256, (2, 64, 128), dtype=torch.uint8)
    (tmp_path / "out").write_bytes(bytes(plain.numel()))
    like = {"out": plain}

    def fails(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(single, "lay_out", fails)
        with pytest.raises(MemoryError):
            apply_layout(plain, "sep16", out=mapped(tmp_path, like)["out"])
    later = mapped(tmp_path, like)["out"]
    stamp = stamp_of(later)
    assert stamp is not None
    assert (stamp.state, stamp.layout, stamp.role) == ("broken", "sep16", None)
    for read in (apply_layout, invert_layout):
        with pytest.raises(LayoutError, match=r"left partly laid out .*out\.preshuffle"):
            read(later, "sep16")
    laid = apply_layout(plain, "sep16", out=later)
    assert stamp_of(laid) is None
    assert not list(tmp_path.glob("*.preshuffle"))
    assert mapped(tmp_path, like)["out"].equal(apply_layout(plain, "sep16"))


def test_two_mappings_of_one_file_share_bytes(tmp_path: Path) -> None:
    tensors = in_files(tmp_path)
    weight = tensors["w13_weight"]
    for shared in (True, False):
        again = mapped(tmp_path, tensors, shared=shared)["w13_weight"]
        with pytest.raises(LayoutError, match="out shares bytes with the tensor"):
            apply_layout(again, "sep16", out=weight)


def test_files_without_a_name_and_ordinary_memory_have_no_record(tmp_path: Path) -> None:
    tensors = in_files(tmp_path)
    for role in tensors:
        (tmp_path / role).unlink()
    apply(tensors, DECISION)
    assert not list(tmp_path.iterdir())
    assert stamp_of(tensors["w13_weight"]) is not None
    shared = {role: tensor.clone().share_memory_() for role, tensor in tensors.items()}
    assert all(stamp_of(tensor) is None for tensor in shared.values())


def test_tensors_of_a_safetensors_file_are_copies(tmp_path: Path) -> None:
    plain = plain_tensors(DECISION)
    save_file(plain, tmp_path / "layer.safetensors")
    tensors = load_file(tmp_path / "layer.safetensors")
    apply(tensors, DECISION)
    assert [path.name for path in tmp_path.iterdir()] == ["layer.safetensors"]
    assert all(tensor.equal(plain[role]) for role, tensor in load_file(tmp_path / "layer.safetensors").items())


def test_a_file_that_is_mapped_for_reading_only_is_refused(tmp_path: Path) -> None:
    """Refused beforehand: a write would end the process.

    It would leave a record that says broken.
    """
    tensors = in_files(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it is not writable, too

        def read_only() -> Tensors:
            return {
                role: torch.from_numpy(np.memmap(tmp_path / role, np.uint8, "r")).view(tensor.dtype).view(tensor.shape)
                for role, tensor in tensors.items()
            }

        plain, copies = read_only(), {role: tensor.clone() for role, tensor in tensors.items()}
        assert _query_addresses([plain["w2_weight"].data_ptr()]) == _search_text([plain["w2_weight"].data_ptr()])
        with pytest.raises(LayoutError, match=r"w13_weight is .*w13_weight, mapped for reading only"):
            apply(plain, DECISION)
        with pytest.raises(LayoutError, match=r"out is .*w2_weight, mapped for reading only"):
            apply_layout(copies["w2_weight"], "sep16", out=plain["w2_weight"])
        assert not list(tmp_path.glob("*.preshuffle"))
        apply(tensors, DECISION)
        laid = read_only()
    for use in (
        lambda: inverse(laid),
        lambda: relayout(laid, decide("bf16")),
        lambda: write_expert(laid, 0, "w13_weight", copies["w13_weight"][0, :8, :80]),
    ):
        with pytest.raises(LayoutError, match="mapped for reading only"):
            use()
    seen, wanted = (expert_view(each, "w13_weight", 1).view(torch.uint8) for each in (laid, tensors))
    assert seen.equal(wanted)
