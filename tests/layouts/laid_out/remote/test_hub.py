"""Checkpoints on the Hub: huggingface_hub's own file system, against a local server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from preshuffle.layouts import CheckpointError
from preshuffle.layouts.laid_out import lay_out_checkpoint, open_laid_out, verify_laid_out
from support.service.hub_server import REPOSITORY, TOKEN, Hub, serving_hub
from support.tensors.laid_out import contents
from support.tensors.lay_out_process import FIELDS

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

pytestmark = pytest.mark.slow
ADDRESS = f"hf://{REPOSITORY}"
FIRST = "model-00001-of-00002.safetensors"


@pytest.fixture
def hub(local: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving_hub(local / "checkpoint") as hub:
        options = {"endpoint": hub.url, "token": False, "skip_instance_cache": True}
        monkeypatch.setitem(fsspec.config.conf, "hf", options)
        yield hub


def test_a_checkpoint_on_the_hub_gives_what_a_folder_gives(hub: Hub, local: Path, tmp_path: Path) -> None:
    manifest = lay_out_checkpoint(ADDRESS, tmp_path / "out", **FIELDS)
    found, wanted = contents(tmp_path / "out"), contents(local / "out")
    assert {name for name in wanted if found[name] != wanted[name]} == {"manifest.json"}  # identities
    for source in manifest.sources:
        assert source.identity == {"sha256": hashlib.sha256(hub.files[source.name]).hexdigest()}
    assert verify_laid_out(tmp_path / "out", against=ADDRESS).verdict == "ok"
    open_laid_out(tmp_path / "out", 0, checkpoint=f"{ADDRESS}@v1", **FIELDS)


def test_a_finished_run_resolves_no_shard(hub: Hub, tmp_path: Path) -> None:
    lay_out_checkpoint(ADDRESS, tmp_path / "out", **FIELDS)
    assert len(hub.shards_asked_for()) == 2
    hub.requests.clear()
    lay_out_checkpoint(ADDRESS, tmp_path / "out", **FIELDS)
    lay_out_checkpoint(f"{ADDRESS}@v1", tmp_path / "out", **FIELDS)  # another name of the same bytes
    assert hub.shards_asked_for() == []


def test_bytes_that_are_not_those_of_the_hash(hub: Hub, tmp_path: Path) -> None:
    hub.spoilt = FIRST
    with pytest.raises(CheckpointError, match=f"{FIRST}: came with other bytes: its sha256 differs"):
        lay_out_checkpoint(ADDRESS, tmp_path / "out", **FIELDS)
    hub.spoilt = "config.json"
    with pytest.raises(CheckpointError, match=r"config\.json: came with other bytes: its git differs"):
        lay_out_checkpoint(ADDRESS, tmp_path / "other", **FIELDS)


def test_a_model_without_access_is_one_line(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.needs_token = True
    for address in (ADDRESS, f"{ADDRESS}@nosuch", "hf://acme/none"):
        with pytest.raises(CheckpointError, match=rf"^{address}: cannot be read: ") as raised:
            lay_out_checkpoint(address, tmp_path / "out", **FIELDS)
        assert "\n" not in str(raised.value)
    monkeypatch.setitem(fsspec.config.conf["hf"], "token", TOKEN)
    lay_out_checkpoint(ADDRESS, tmp_path / "out", **FIELDS)
