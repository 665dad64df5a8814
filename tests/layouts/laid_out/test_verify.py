"""Proof of a laid-out checkpoint: what is wrong is found, named, and identified where that is possible."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preshuffle.layouts.laid_out import LaidOutError, Manifest, lay_out_checkpoint, verify_laid_out
from support.tensors.laid_out import checkpoint_with_others

FIRST = "rank-tp0-ep0-layer-00000.safetensors"
FIELDS: dict[str, Any] = {"arch": "gfx950", "activation_dtype": "fp4x2"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laid-out")
    checkpoint_with_others(folder / "checkpoint")
    lay_out_checkpoint(folder / "checkpoint", folder / "out", tp=2, **FIELDS)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def write_at(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(data)


@pytest.mark.parametrize("full", [False, True])
def test_what_was_written_is_right(made: Path, full: bool) -> None:
    found = verify_laid_out(made / "out", against=made / "checkpoint", full=full, samples=1000, seed=1)
    assert found.verdict == "ok"
    assert found.tensors == 24 + 4
    assert found.recomputed == 24
    assert (found.proof, found.seed) == (("full", None) if full else ("sampled", 1))
    assert verify_laid_out(made / "out").verdict == "ok"


def _swap_ranks(out: Path) -> None:
    one, other = out / FIRST, out / "rank-tp1-ep0-layer-00000.safetensors"
    one.rename(out / "x")
    other.rename(one)
    (out / "x").rename(other)


def _cut(out: Path) -> None:
    path = out / FIRST
    path.write_bytes(path.read_bytes()[:-1])


def _remove(out: Path) -> None:
    (out / FIRST).unlink()


def _tokenizer(out: Path) -> None:
    (out / "tokenizer.json").write_text("[]")


def _stray(out: Path) -> None:
    shutil.copy(out / FIRST, out / "rank-tp0-ep0-layer-00007.safetensors")


def _index(out: Path) -> None:
    (out / "rank-tp1-ep0.safetensors.index.json").unlink()


def _header(out: Path) -> None:
    data = (out / FIRST).read_bytes()
    (out / FIRST).write_bytes(data.replace(b'"U8"', b'"I8"', 1))


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (_swap_ranks, FIRST, "of another run than the manifest"),
        (_cut, FIRST, "cut short"),
        (_remove, FIRST, "cannot be read"),
        (_tokenizer, "tokenizer.json", "changed since it was copied"),
        (_stray, "rank-tp0-ep0-layer-00007.safetensors", "not in the manifest"),
        (_index, "rank-tp1-ep0.safetensors.index.json", "missing"),
        (_header, FIRST, "another one than the manifest says"),
    ],
)
def test_files_that_are_not_the_manifest_s(copy: Path, damage: Callable[[Path], None], file: str, message: str) -> None:
    damage(copy / "out")
    found = verify_laid_out(copy / "out", samples=4)
    assert found.verdict == "failed"
    assert any(problem.file == file and message in problem.problem for problem in found.problems)


def test_one_byte_is_found_by_the_full_proof(copy: Path) -> None:
    tensor = Manifest.read(copy / "out").ranks[0].tensors[0]
    place = tensor.begin + 12345
    before = (copy / "out" / FIRST).read_bytes()[place]
    write_at(copy / "out" / FIRST, place, bytes([before ^ 1]))
    (problem,) = verify_laid_out(copy / "out", full=True).problems
    assert (problem.file, problem.tensor) == (FIRST, tensor.name)
    assert "checksum differs" in problem.problem
    found = verify_laid_out(copy / "out", against=copy / "checkpoint", full=True).problems
    assert any("not what the checkpoint gives, from about expert" in problem.problem for problem in found)


def test_wrong_bytes_are_identified(copy: Path) -> None:
    """Another rank's bytes, where this rank's should be: samples find it, and identify says it."""
    manifest = Manifest.read(copy / "out")
    mine, other = manifest.ranks[0].tensors[0], manifest.ranks[1].tensors[0]
    data = (copy / "out" / manifest.ranks[1].file).read_bytes()[other.begin : other.begin + other.nbytes]
    write_at(copy / "out" / FIRST, mine.begin, data)
    found = verify_laid_out(copy / "out", against=copy / "checkpoint", samples=1000)
    problem = next(problem for problem in found.problems if problem.tensor == mine.name)
    assert problem.identified is not None
    assert "tp rank 1 of 2" in problem.identified


def test_another_checkpoint_is_not_what_was_laid_out(copy: Path) -> None:
    checkpoint_with_others(copy / "other", seed=1)
    found = verify_laid_out(copy / "out", against=copy / "other", samples=4, seed=3)
    assert found.verdict == "failed"
    assert any("not what the checkpoint" in problem.problem for problem in found.problems)
    path = sorted((copy / "checkpoint").glob("*.safetensors"))[0]
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    found = verify_laid_out(copy / "out", against=copy / "checkpoint", full=True)
    assert [problem.file for problem in found.problems if "not the file" in problem.problem] == [path.name]


def test_a_changed_manifest_is_refused(copy: Path) -> None:
    path = copy / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["sources"][0]["digest"] = "sum64:" + "0" * 32
    path.write_text(json.dumps(manifest))
    with pytest.raises(LaidOutError, match="its key is not that of what it lists"):
        verify_laid_out(copy / "out")
    path.write_text("{}")
    with pytest.raises(LaidOutError, match="no manifest"):
        verify_laid_out(copy / "out")
    path.unlink()
    with pytest.raises(LaidOutError, match="cannot be read"):
        verify_laid_out(copy / "out")
