"""Finished runs of remote checkpoints, repeated: what is fetched again, counted by request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from preshuffle.api.cli import main
from preshuffle.layouts import CheckpointError
from preshuffle.layouts.laid_out import RunEvent, StaleError, lay_out_checkpoint, restore_checkpoint, verify_laid_out
from support.tensors.laid_out import GPT_OSS, checkpoint_with_others, contents
from support.tensors.lay_out_process import FIELDS

fsspec = pytest.importorskip("fsspec")
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
pytest.importorskip("moto.server", reason="moto[s3,server] is not installed")

ADDRESS = "s3://finished/model"
FIRST, SECOND, THIRD = (f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "checkpoint"
    checkpoint_with_others(folder, {**GPT_OSS, "num_hidden_layers": 3})
    move_tensors(folder, "model.layers.1.mlp.experts.down_proj", SECOND, THIRD)
    return folder


@pytest.fixture
def system(endpoint: str, stored: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint, "key": "test", "secret": "test"})
    found = fsspec.filesystem("s3")
    if not found.exists("finished"):
        found.mkdir("finished")
    put(found, stored, *(path.name for path in stored.iterdir()))
    return found


def move_tensors(folder: Path, prefix: str, source: str, target: str) -> None:
    """Move some of a layer's tensors to another shard: a layer in two shards."""
    read = {}
    for name in (source, target):
        with safe_open(folder / name, "pt") as file:
            read[name] = {key: file.get_tensor(key) for key in file.keys()}
    moved = [key for key in read[source] if key.startswith(prefix)]
    read[target].update({key: read[source].pop(key) for key in moved})
    for name, tensors in read.items():
        save_file(tensors, folder / name, metadata={"format": "pt"})
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"].update(dict.fromkeys(moved, target))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def put(system: Any, folder: Path, *names: str) -> None:
    for name in names:
        system.pipe(f"finished/model/{name}", (folder / name).read_bytes())


def changed(folder: Path, name: str, into: Path) -> Path:
    """Write a checkpoint of which one shard has another value."""
    into.mkdir()
    for path in folder.iterdir():
        (into / path.name).write_bytes(path.read_bytes())
    with safe_open(folder / name, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    scales = next(key for key in tensors if key.endswith("_scales"))
    tensors[scales] = tensors[scales] ^ torch.tensor(1, dtype=torch.uint8)
    save_file(tensors, into / name, metadata={"format": "pt"})
    return into


@pytest.fixture
def requests(system: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards of which bytes are asked for."""
    reads: list[str] = []
    whole = system.cat_file

    def reading(path: str, **edges: Any) -> Any:
        if path.endswith(".safetensors"):
            reads.append(path.rpartition("/")[2])
        return whole(path, **edges)

    monkeypatch.setattr(system, "cat_file", reading)
    return reads


def test_a_finished_run_fetches_no_shard_again(
    system: Any, stored: Path, requests: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    lay_out_checkpoint(ADDRESS, out, **FIELDS)
    assert sorted(requests) == [FIRST, SECOND, THIRD]
    requests.clear()
    before, events = contents(out), list[RunEvent]()
    lay_out_checkpoint(ADDRESS, out, listener=events.append, **FIELDS)
    assert not requests
    assert contents(out) == before
    assert not [event for event in events if event.event == "file"]
    command = ["apply", ADDRESS, str(out), "--arch", "gfx950", "--tp", "2", "--activation-dtype", "fp4x2"]
    assert main(command) == 0
    assert "already laid out" in capsys.readouterr().out
    assert not requests


@pytest.mark.parametrize(
    ("name", "fetched"),
    [
        (SECOND, [SECOND, THIRD]),
        pytest.param(FIRST, [FIRST], marks=pytest.mark.slow),
        pytest.param(THIRD, [SECOND, THIRD], marks=pytest.mark.slow),
    ],
)
def test_what_changed_is_fetched_and_what_goes_with_it(
    system: Any, stored: Path, requests: list[str], tmp_path: Path, name: str, fetched: list[str]
) -> None:
    out, other = tmp_path / "out", changed(stored, name, tmp_path / "changed")
    lay_out_checkpoint(ADDRESS, out, **FIELDS)
    requests.clear()
    put(system, other, name)
    manifest = lay_out_checkpoint(ADDRESS, out, **FIELDS)
    assert sorted(requests) == fetched
    lay_out_checkpoint(other, tmp_path / "wanted", **FIELDS)
    found, wanted = contents(out), contents(tmp_path / "wanted")
    assert {file for file in found if found[file] != wanted.get(file)} == {"manifest.json"}  # identities
    assert found.keys() == wanted.keys()
    assert all(source.identity for source in manifest.sources)
    assert verify_laid_out(out, against=other, full=True).verdict == "ok"
    restore_checkpoint(out, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(other)


def test_a_missing_file_is_written_from_its_own_shards(
    system: Any, stored: Path, requests: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    lay_out_checkpoint(ADDRESS, out, **FIELDS)
    before = contents(out)
    (out / "rank-tp1-ep0-layer-00000.safetensors").unlink()
    requests.clear()
    lay_out_checkpoint(ADDRESS, out, **FIELDS)
    assert requests == [FIRST]
    assert contents(out) == before
    lay_out_checkpoint(ADDRESS, out, keep="all", **FIELDS)
    lay_out_checkpoint(stored, tmp_path / "kept", keep="all", **FIELDS)
    assert contents(out).keys() == contents(tmp_path / "kept").keys()


def test_another_decision_is_refused_before_a_shard_comes(
    system: Any, stored: Path, requests: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    lay_out_checkpoint(ADDRESS, out, **FIELDS)
    before = contents(out)
    requests.clear()
    with pytest.raises(StaleError, match="is finished, by another run or another decision"):
        lay_out_checkpoint(ADDRESS, out, **{**FIELDS, "activation_dtype": "bf16"})
    assert not requests
    assert {name: data for name, data in contents(out).items() if ".unfinished" not in name} == before


@pytest.mark.parametrize(
    "kind", [pytest.param("fetched", marks=pytest.mark.slow), pytest.param("started", marks=pytest.mark.slow), "file"]
)
def test_an_update_that_was_stopped_goes_on(
    system: Any, stored: Path, requests: list[str], tmp_path: Path, kind: str
) -> None:
    out, other = tmp_path / "out", changed(stored, FIRST, tmp_path / "changed")
    lay_out_checkpoint(ADDRESS, out, **FIELDS)
    put(system, other, FIRST)
    requests.clear()

    def stop(event: RunEvent) -> None:
        if event.event == kind:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lay_out_checkpoint(ADDRESS, out, listener=stop, **{**FIELDS, "workers": 1})
    assert (kind == "file") != (out / "manifest.json").exists()
    lay_out_checkpoint(ADDRESS, out, **FIELDS)
    assert requests == [FIRST]
    assert verify_laid_out(out, against=other, full=True).verdict == "ok"


def test_a_lying_etag_is_found_where_bytes_come(
    system: Any, stored: Path, requests: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that states the same of other bytes is believed only until they come."""
    out, other = tmp_path / "out", changed(stored, THIRD, tmp_path / "changed")
    lay_out_checkpoint(ADDRESS, out, **FIELDS)
    before = {name: entry["ETag"] for entry in system.ls("finished/model", detail=True) for name in [entry["name"]]}
    put(system, other, THIRD)
    whole = system.ls

    def listing(path: str, **keywords: Any) -> Any:
        return [{**entry, "ETag": before[entry["name"]]} for entry in whole(path, **keywords)]

    monkeypatch.setattr(system, "ls", listing)
    (out / "rank-tp0-ep0-layer-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=f"{THIRD}: is not the file that the run in .* began with"):
        lay_out_checkpoint(ADDRESS, out, **FIELDS)
    assert not (out / "rank-tp0-ep0-layer-00002.safetensors").exists()


def test_without_an_identity_everything_is_fetched(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = fsspec.filesystem("memory")
    system.put(str(stored), "/finished/model", recursive=True)
    reads: list[str] = []
    whole = type(system).cat_file

    def reading(self: Any, path: str, **edges: Any) -> Any:
        reads.append(path.rpartition("/")[2])
        return whole(self, path, **edges)

    monkeypatch.setattr(type(system), "cat_file", reading)
    try:
        lay_out_checkpoint("memory://finished/model", tmp_path / "out", **FIELDS)
        reads.clear()
        lay_out_checkpoint("memory://finished/model", tmp_path / "out", **FIELDS)
        assert {FIRST, SECOND, THIRD} <= set(reads)
        put(system, changed(stored, FIRST, tmp_path / "changed"), FIRST)
        with pytest.raises(StaleError, match="made of another checkpoint"):
            lay_out_checkpoint("memory://finished/model", tmp_path / "out", **FIELDS)
    finally:
        system.rm("/finished", recursive=True)
