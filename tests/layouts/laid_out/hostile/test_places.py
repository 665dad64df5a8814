"""Folders inside each other, names that clash, and checkpoints of many parts."""

from __future__ import annotations

import gc
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

import pytest

from preshuffle.api.cli import main
from preshuffle.layouts import CheckpointError, write_checkpoint
from preshuffle.layouts.laid_out import (
    LaidOutError,
    Share,
    convert_laid_out,
    lay_out_checkpoint,
    lay_out_share,
    restore_checkpoint,
)
from support.tensors.laid_out import QWEN, contents
from support.tensors.lay_out_process import FIELDS

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(checkpoint, tmp_path / "copied")
    return tmp_path / "copied"


@pytest.mark.parametrize("inside", [".unfinished", ".unfinished/below", "source"])
def test_a_source_that_a_run_would_remove(checkpoint: Path, whole: object, tmp_path: Path, inside: str) -> None:
    runs: list[tuple[Path, Callable[[Path, Path], object]]] = [
        (checkpoint, lambda source, out: lay_out_checkpoint(source, out, **FIELDS)),
        (checkpoint, lambda source, out: lay_out_share(source, out, Share(0, 1), **FIELDS)),
        (checkpoint.parent / "whole", lambda source, out: convert_laid_out(source, out, tp=1)),
        (checkpoint.parent / "whole", restore_checkpoint),
    ]
    for number, (original, run) in enumerate(runs):
        out = tmp_path / str(number)
        source = out / inside / "it"
        shutil.copytree(original, source)
        (tmp_path / f"link{number}").symlink_to(source)
        for way in (source, tmp_path / f"link{number}"):
            with pytest.raises(LaidOutError, match="which this run replaces; move it"):
                run(way, out)
        assert contents(source) == contents(original)


def test_one_folder_in_the_other(copied: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    lay_out_checkpoint(copied, copied / "out", **FIELDS)
    assert contents(copied / "out") == whole
    shutil.copytree(copied, tmp_path / "out" / "checkpoint", ignore=shutil.ignore_patterns("out"))
    lay_out_checkpoint(tmp_path / "out" / "checkpoint", tmp_path / "out", **FIELDS)
    found = contents(tmp_path / "out")
    assert {name: data for name, data in found.items() if not name.startswith("checkpoint/")} == whole


@pytest.mark.parametrize("name", ["source", ".unfinished", "Manifest.json", "rank-tp0-ep0.safetensors.index.json"])
def test_small_files_with_names_of_the_output(copied: Path, tmp_path: Path, name: str) -> None:
    (copied / name).write_text("{}")
    with pytest.raises(LaidOutError, match="has a name that"):
        lay_out_checkpoint(copied, tmp_path / "out", **FIELDS)
    assert not (tmp_path / "out").exists()


def test_shards_in_folders_below(copied: Path, tmp_path: Path) -> None:
    (copied / "below").mkdir()
    (copied / SHARD).rename(copied / "below" / SHARD)
    index = copied / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    table["weight_map"] = {key: f"below/{file}" if file == SHARD else file for key, file in table["weight_map"].items()}
    index.write_text(json.dumps(table))
    with pytest.raises(LaidOutError, match=f"below/{SHARD}: is in a folder below"):
        lay_out_checkpoint(copied, tmp_path / "out", **FIELDS)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def few_files() -> Iterator[int]:
    """Let this process open 24 files beside those that it has open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()  # closes what earlier tests have left open
    numbers = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    # the limit is one of numbers, which have gaps
    limit = next(islice((number for number in count() if number not in numbers), 24, None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_shards_than_a_process_may_open(
    tmp_path: Path, few_files: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"num_experts": 2, "hidden_size": 64, "moe_intermediate_size": 64, "num_hidden_layers": 40}
    write_checkpoint(tmp_path / "in", {**QWEN, **sizes})
    with pytest.raises(CheckpointError, match=r"cannot be mapped: Too many open files; .* raise the limit"):
        lay_out_checkpoint(tmp_path / "in", tmp_path / "out", arch="gfx950", workers=1)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert main(["apply", str(tmp_path / "in"), str(tmp_path / "out"), "--arch", "gfx950", "--workers", "1"]) == 0
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > few_files
    assert "40 of experts" in capsys.readouterr().out
