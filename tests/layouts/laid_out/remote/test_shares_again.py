"""Shares of finished runs, what they fetch, and races between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from preshuffle.layouts.laid_out import (
    MANIFEST,
    Manifest,
    RunEvent,
    Share,
    ShareWritten,
    lay_out_checkpoint,
    lay_out_share,
    verify_laid_out,
)
from support.tensors.laid_out import contents
from support.tensors.lay_out_process import FIELDS

pytest.importorskip("fsspec")
from support.shares.tagged_files import TaggedFiles, fetched

FIRST, SECOND = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
TESTS = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def laid_out(local: Path) -> Path:
    """A run, and what is wanted when a shard has changed."""
    folder = local
    lay_out_checkpoint(f"tagged://{folder}/checkpoint", folder / "finished", **FIELDS)
    lay_out_checkpoint(f"tagged://{changed(folder / 'checkpoint', folder / 'changed')}", folder / "wanted", **FIELDS)
    return folder


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(TaggedFiles, "log", tmp_path / "fetched")
    yield
    assert not list(tmp_path.glob("*/.unfinished"))


def changed(folder: Path, into: Path) -> Path:
    """Copy a checkpoint, and change a scale in its second shard."""
    into.mkdir()
    for path in folder.iterdir():
        (into / path.name).write_bytes(path.read_bytes())
    with safe_open(into / SECOND, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    scales = next(key for key in tensors if key.endswith("_scales"))
    tensors[scales] = tensors[scales] ^ torch.tensor(1, dtype=torch.uint8)
    save_file(tensors, into / SECOND, metadata={"format": "pt"})
    return into


def copy_of(laid_out: Path, tmp_path: Path) -> tuple[str, Path]:
    """Return a checkpoint's address, and a folder laid out from it."""
    out, source = tmp_path / "out", tmp_path / "checkpoint"
    source.mkdir()
    for path in (laid_out / "checkpoint").iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    lay_out_checkpoint(f"tagged://{source}", out, **FIELDS)
    assert fetched() == [FIRST, SECOND]
    return f"tagged://{source}", out


def states(out: Path) -> dict[str, tuple[int, int, int]]:
    """Return what tells that a file was written or replaced, by name."""
    found = {path: path.stat() for path in out.rglob("*") if path.is_file()}
    return {str(path): (one.st_ino, one.st_mtime_ns, one.st_size) for path, one in found.items()}


def test_shares_of_a_finished_run_fetch_and_write_nothing(laid_out: Path, tmp_path: Path) -> None:
    address, out = copy_of(laid_out, tmp_path)
    before, events = states(out), list[RunEvent]()
    for index in (2, 0, 1):
        found = lay_out_share(address, out, Share(index, 3), listener=events.append, **FIELDS)
        assert isinstance(found, Manifest)
    assert (fetched(), states(out)) == ([], before)
    assert not [event for event in events if event.event == "file"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_shares_write_what_changed(laid_out: Path, tmp_path: Path, order: tuple[int, int]) -> None:
    address, out = copy_of(laid_out, tmp_path)
    (tmp_path / "checkpoint" / SECOND).write_bytes((laid_out / "changed" / SECOND).read_bytes())
    written = [lay_out_share(address, out, Share(index, 2), **FIELDS) for index in order]
    assert fetched() == [SECOND]
    assert isinstance(written[1], Manifest)
    assert contents(out) == contents(laid_out / "wanted")
    assert verify_laid_out(out, against=laid_out / "changed", full=True).verdict == "ok"


def test_outdated_files_of_another_share_are_missing(laid_out: Path, tmp_path: Path) -> None:
    """A share leaves to another one what that one has to write."""
    address, out = copy_of(laid_out, tmp_path)
    (tmp_path / "checkpoint" / SECOND).write_bytes((laid_out / "changed" / SECOND).read_bytes())
    found = lay_out_share(address, out, Share(0, 2), **FIELDS)  # of the first shard, which is as it was
    assert isinstance(found, ShareWritten)
    assert found.missing == 3
    lay_out_share(address, out, Share(1, 2), **FIELDS)
    assert (out / MANIFEST).exists()
    assert fetched() == [SECOND]


def test_a_missing_file_of_a_share(laid_out: Path, tmp_path: Path) -> None:
    address, out = copy_of(laid_out, tmp_path)
    before = contents(out)
    (out / "rank-tp1-ep0-layer-00000.safetensors").unlink()
    assert lay_out_share(address, out, Share(1, 2), **FIELDS) == ShareWritten(Share(1, 2), 3, 1)
    assert fetched() == []
    assert isinstance(lay_out_share(address, out, Share(0, 2), **FIELDS), Manifest)
    assert fetched() == [FIRST]
    assert contents(out) == before


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_shares_at_once_and_one_killed(laid_out: Path, tmp_path: Path, rounds: int) -> None:
    arguments = [str(laid_out), str(tmp_path / "out"), str(rounds)]
    command = [sys.executable, "-m", "support.shares.rounds", *arguments]
    variables = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables, timeout=600)
    assert done.returncode == 0, done.stderr
    assert all(json.loads(done.stdout).values())
