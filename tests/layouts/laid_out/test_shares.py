"""Processes that each write a share of a checkpoint give together what one process gives."""

from __future__ import annotations

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from preshuffle.layouts import Checkpoint
from preshuffle.layouts.laid_out import (
    MANIFEST,
    LaidOutError,
    Manifest,
    RunEvent,
    Share,
    ShareWritten,
    lay_out_checkpoint,
    lay_out_share,
)
from preshuffle.layouts.laid_out.files.finished_manifest import FinishedManifest
from preshuffle.layouts.laid_out.runs import sources
from preshuffle.layouts.laid_out.runs.output_folder import fetching, finishing, own_share, shared_folder
from preshuffle.layouts.laid_out.runs.sources import Sources
from preshuffle.layouts.laid_out.whole_checkpoint import WholeCheckpoint
from preshuffle.layouts.stamps import digest_file
from support.tensors.laid_out import assert_named_files_are_whole, contents
from support.tensors.lay_out_process import FIELDS, lay_out_in_process


def test_one_of_three_processes_is_killed_and_runs_again(
    checkpoint: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    done = lay_out_in_process(checkpoint, out, "--shares", 3, "--at", 45)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0, -signal.SIGKILL, 0]
    assert list(out.glob("*.safetensors.*.partial"))
    assert not (out / "manifest.json").exists()
    assert_named_files_are_whole(out, whole)
    assert isinstance(lay_out_share(checkpoint, out, Share(1, 3), **FIELDS), Manifest)
    assert contents(out) == whole


@pytest.mark.parametrize("count", [2, 9])
def test_the_last_share_finishes_in_any_order(
    count: int, checkpoint: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    *first, last = range(count)
    for index in reversed(first):
        found = lay_out_share(checkpoint, tmp_path, Share(index, count), **FIELDS)
        assert isinstance(found, ShareWritten) == (not (tmp_path / "manifest.json").exists())
    assert isinstance(lay_out_share(checkpoint, tmp_path, Share(last, count), **FIELDS), Manifest)
    assert contents(tmp_path) == whole


def test_a_whole_run_takes_over_what_shares_wrote(checkpoint: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    found = lay_out_share(checkpoint, tmp_path, Share(0, 2), **FIELDS)
    assert isinstance(found, ShareWritten)
    assert found.files + found.missing == 6
    events: list[RunEvent] = []
    lay_out_checkpoint(checkpoint, tmp_path, listener=events.append, **FIELDS)
    assert len([one for one in events if one.event == "resumed"]) == found.files
    assert contents(tmp_path) == whole


def test_every_unit_is_in_one_share(checkpoint: Path, tmp_path: Path) -> None:
    job = WholeCheckpoint.of(Checkpoint.open(checkpoint), tmp_path, None, (), FIELDS, others=True, keep="scales")
    files = sorted(unit.file for unit in job.units)
    for count in range(1, 9):
        shares = [Share(index, count).of(job.units, job.plan) for index in range(count)]
        assert sorted(unit.file for share in shares for unit in share) == files
    sizes = [sum(unit.nbytes for unit in Share(index, 2).of(job.units, job.plan)) for index in range(2)]
    assert max(sizes) < 0.6 * sum(sizes)
    assert len({unit.layer for unit in Share(0, 2).of(job.units, job.plan) if hasattr(unit, "layer")}) == 1


def test_who_may_write_a_folder_at_once(checkpoint: Path, tmp_path: Path) -> None:
    with shared_folder(tmp_path), own_share(tmp_path, "0-of-2", ()):
        with pytest.raises(LaidOutError, match="another process writes it"):
            lay_out_checkpoint(checkpoint, tmp_path, **FIELDS)
        with pytest.raises(LaidOutError, match="another process works on share 0-of-2"):
            lay_out_share(checkpoint, tmp_path, Share(0, 2), **FIELDS)
        assert isinstance(lay_out_share(checkpoint, tmp_path, Share(1, 2), **FIELDS), ShareWritten)
    with ThreadPoolExecutor() as pool:
        with finishing(tmp_path):
            waiting = pool.submit(lay_out_share, checkpoint, tmp_path, Share(0, 2), **FIELDS)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
            assert not (tmp_path / MANIFEST).exists()
        assert isinstance(waiting.result(), Manifest)


def test_shares_of_different_runs_do_not_mix(checkpoint: Path, tmp_path: Path) -> None:
    lay_out_share(checkpoint, tmp_path, Share(0, 2), **FIELDS)
    with pytest.raises(LaidOutError, match=r"another run|differs in"):
        lay_out_share(checkpoint, tmp_path, Share(1, 2), **{**FIELDS, "activation_dtype": "bf16"})


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that are hashed."""
    names: list[str] = []

    def counting(path: Path, extent: tuple[int, int]) -> str:
        names.append(path.name)
        return digest_file(path, extent)

    monkeypatch.setattr(sources, "digest_file", counting)
    return names


def test_a_shard_is_hashed_once_by_all_shares(checkpoint: Path, tmp_path: Path, hashed: list[str]) -> None:
    for index in (0, 0, 4, 1, 4, 3, 2, 0):  # again, in any order, and once more when all is finished
        found = lay_out_share(checkpoint, tmp_path, Share(index, 5), **FIELDS)
    assert isinstance(found, Manifest)
    assert sorted(hashed) == [path.name for path in sorted(checkpoint.glob("*.safetensors"))]


def test_what_another_share_hashes_meanwhile(checkpoint: Path, tmp_path: Path, hashed: list[str]) -> None:
    opened = Checkpoint.open(checkpoint)
    (tmp_path / ".unfinished").mkdir()
    one, other = (Sources(opened, tmp_path, {}, f"plan-{index}-of-2") for index in range(2))
    path = one.paths[0]
    assert one.digest(path) == other.digest(path)
    assert hashed == [path.name]


def test_machines_that_see_other_inodes(checkpoint: Path, tmp_path: Path, hashed: list[str]) -> None:
    opened = Checkpoint.open(checkpoint)
    (tmp_path / ".unfinished").mkdir()
    first = Sources(opened, tmp_path, {}, "plan-0-of-2")
    path = first.paths[0]
    first.digest(path)
    text = (tmp_path / ".unfinished" / "plan-0-of-2.json").read_text()
    inode = str(path.stat().st_ino)
    assert inode in text
    (tmp_path / ".unfinished" / "plan-1-of-2.json").write_text(text.replace(inode, "1"))  # of another mount
    Sources(opened, tmp_path, {}, "plan-2-of-3").digest(path)
    assert hashed == [path.name]


def test_a_manifest_is_read_once_while_it_is_the_same_file(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    lay_out_checkpoint(checkpoint, out, **FIELDS)
    read: list[Path] = []
    original = Manifest.read

    def counted(folder: Path) -> Manifest:
        read.append(folder)
        return original(folder)

    monkeypatch.setattr(Manifest, "read", counted)
    lay_out_checkpoint(checkpoint, out, **FIELDS)
    assert read == [out]
    finished = FinishedManifest(out)
    first = finished.read()
    assert (finished.read() is first, len(read)) == (True, 2)
    shutil.copy(out / MANIFEST, tmp_path / "other")
    os.replace(tmp_path / "other", out / MANIFEST)
    assert (finished.read() == first, len(read)) == (True, 3)
    (out / MANIFEST).unlink()
    assert finished.state is None
    with pytest.raises(LaidOutError):
        finished.read()


def test_a_finished_run_knows_its_shards(
    checkpoint: Path, tmp_path: Path, whole: dict[str, bytes], hashed: list[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(checkpoint, source)
    lay_out_checkpoint(source, out, **FIELDS)
    if not os.listxattr(out / "manifest.json"):
        pytest.skip("the file system has no extended attributes")
    hashed.clear()
    lay_out_checkpoint(source, out, **FIELDS)
    assert (hashed, contents(out)) == ([], whole)
    path = source / "model-00001-of-00002.safetensors"
    data, before = bytearray(path.read_bytes()), path.stat()
    data[-1] ^= 1
    (source / "new").write_bytes(data)
    os.utime(source / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (source / "new").rename(path)  # of the same size and time
    with pytest.raises(LaidOutError, match="made of another checkpoint"):
        lay_out_checkpoint(source, out, **FIELDS)
    assert path.name in hashed


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 2), (0, 0)])
def test_a_share_that_there_is_not(index: int, count: int) -> None:
    with pytest.raises(LaidOutError, match="shares are counted from 0"):
        Share(index, count)


def test_a_remote_checkpoint_is_fetched_by_one(
    checkpoint: Path, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    system = pytest.importorskip("fsspec").filesystem("memory")
    system.put(str(checkpoint), "/models/shares", recursive=True)
    try:
        with ThreadPoolExecutor() as pool:
            with fetching(tmp_path):
                waiting = pool.submit(lay_out_share, "memory://models/shares", tmp_path, Share(0, 2), **FIELDS)
                with pytest.raises(TimeoutError):
                    waiting.result(0.3)
                assert not (tmp_path / ".unfinished" / "checkpoint").exists()
            assert isinstance(waiting.result(), ShareWritten)
        monkeypatch.setattr(type(system), "cat_file", None)  # nothing is fetched again
        assert isinstance(lay_out_share("memory://models/shares", tmp_path, Share(1, 2), **FIELDS), Manifest)
    finally:
        system.rm("/models", recursive=True)
    assert contents(tmp_path) == whole
