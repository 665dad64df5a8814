"""An index names files of its own folder only."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from preshuffle.layouts import Checkpoint, CheckpointError, write_checkpoint
from support.tensors.moe import hf_config

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "home" / "model", hf_config())
    return tmp_path / "home" / "model"


def name_file(folder: Path, file: object) -> None:
    table = json.loads((folder / INDEX).read_text())
    table["weight_map"] = dict.fromkeys(table["weight_map"], file)
    (folder / INDEX).write_text(json.dumps(table))


def shard_of(folder: Path) -> str:
    return next(path.name for path in folder.glob("*.safetensors"))


@pytest.mark.parametrize(
    "file",
    [
        "../other.safetensors", "../model/../other.safetensors", "a/../../other.safetensors", "..", ".", "",
        "/etc/passwd", "//etc/passwd", "C:\\shard", "..\\other", "\\\\host\\share", "a\0b", "a\nb", "./../x",
        3, None, ["a"], {}, "pipe", "folder", "m" * 100000,
    ],
)  # fmt: skip
def test_a_file_outside_is_refused(file: object, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    name_file(folder, file)
    with pytest.raises(CheckpointError, match=r"index\.json: (names|not a safetensors index)"):
        Checkpoint.open(folder)


def test_links_out_of_the_folder_are_refused(folder: Path) -> None:
    shutil.copy(folder / shard_of(folder), folder.parent / "other.safetensors")
    (folder / "link.safetensors").symlink_to(folder.parent / "other.safetensors")
    (folder / "sub").symlink_to(folder.parent)
    (folder / "loop").symlink_to(folder / "loop")
    for file in ("link.safetensors", "sub/other.safetensors", "loop", "loop/x"):
        name_file(folder, file)
        with pytest.raises(CheckpointError, match=r"a link to|cannot be followed|valid: a file in"):
            Checkpoint.open(folder)


def test_links_inside_and_to_the_folder_are_followed(folder: Path) -> None:
    (folder / "shards").mkdir()
    os.rename(folder / shard_of(folder), folder / "shards" / "one.safetensors")
    (folder / "link.safetensors").symlink_to("shards/one.safetensors")
    (folder.parent / "alias").symlink_to(folder)
    for file in ("shards/one.safetensors", "link.safetensors", "./link.safetensors"):
        name_file(folder, file)
        assert Checkpoint.open(folder.parent / "alias").shards


def test_the_hugging_face_cache_is_followed(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--a--b"
    (repository / "blobs").mkdir(parents=True)
    (snapshot := repository / "snapshots" / "abc").mkdir(parents=True)
    for path in folder.iterdir():
        os.rename(path, repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert Checkpoint.open(snapshot).shards
    (snapshot / "out").symlink_to("../../../other")
    name_file(snapshot, "out")
    with pytest.raises(CheckpointError, match="a link to"):
        Checkpoint.open(snapshot)


@pytest.mark.parametrize("depth", [2_000, 200_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
@pytest.mark.parametrize("file", [INDEX, "config.json"])
def test_nesting_without_end_is_refused(depth: int, brackets: str, file: str, folder: Path) -> None:
    opening = brackets[0] if brackets == "[]" else '{"a":'
    (folder / file).write_text(f'{{"weight_map": {opening * depth}1{brackets[1] * depth}}}')
    with pytest.raises(ValueError, match=r"not a safetensors index|nested too deeply|levels deep|model_type"):
        Checkpoint.open(folder)
