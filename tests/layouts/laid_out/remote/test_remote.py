"""Checkpoints on other file systems, with fsspec's in memory."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preshuffle.layouts import CheckpointError
from preshuffle.layouts.checkpoint import identity_of_link, same_identity, without_password
from preshuffle.layouts.laid_out import StaleError, lay_out_checkpoint, open_laid_out, verify_laid_out
from support.tensors.laid_out import checkpoint_with_others, contents

fsspec = pytest.importorskip("fsspec")
A4W4: dict[str, Any] = {"arch": "gfx950", "activation_dtype": "fp4x2", "tp": 2}


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    checkpoint_with_others(tmp_path / "checkpoint")
    system = fsspec.filesystem("memory")
    system.put(str(tmp_path / "checkpoint"), "/models/small", recursive=True)
    system.pipe("/models/small/pytorch_model.bin", b"not wanted")
    yield "memory://models/small"
    system.rm("/models", recursive=True)


def test_a_remote_checkpoint_gives_what_a_local_one_gives(address: str, tmp_path: Path) -> None:
    lay_out_checkpoint(address, tmp_path / "remote", **A4W4)
    lay_out_checkpoint(tmp_path / "checkpoint", tmp_path / "local", **A4W4)
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")


def test_a_short_read_is_an_error_and_the_next_run_goes_on(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = fsspec.filesystem("memory")
    with monkeypatch.context() as patch:
        whole = type(system).cat_file
        patch.setattr(type(system), "cat_file", lambda self, path, **edges: whole(self, path, **edges)[:-1])
        with pytest.raises(CheckpointError, match=r"came short: \d+ of \d+ bytes"):
            lay_out_checkpoint(address, tmp_path / "out", **A4W4)
    assert not [path for path in (tmp_path / "out").glob("*") if path.name != ".unfinished"]
    assert not list((tmp_path / "out").rglob("*.partial"))
    lay_out_checkpoint(address, tmp_path / "out", **A4W4)
    assert (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / ".unfinished").exists()


def test_what_is_not_there_is_named(address: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"memory://models/none: cannot be read"):
        lay_out_checkpoint("memory://models/none", tmp_path / "out", **A4W4)
    with pytest.raises(CheckpointError, match=r"nosuch://x: cannot be read"):
        lay_out_checkpoint("nosuch://x", tmp_path / "out", **A4W4)
    fsspec.filesystem("memory").rm("/models/small/model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"names model-00002-of-00002.safetensors, which is not there"):
        lay_out_checkpoint(address, tmp_path / "out", **A4W4)


class Hub(fsspec.get_filesystem_class("memory")):  # type: ignore[misc]
    """Lists files as huggingface_hub does: Git blobs by their SHA-1, and LFS objects by SHA-256."""

    protocol = "hub"
    store = fsspec.get_filesystem_class("memory").store
    lies = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("hub://", "memory://")))

    def ls(self, path: str, detail: bool = True, **keywords: Any) -> list[dict[str, Any]]:
        return [self.described(entry) for entry in super().ls(path, detail=True, **keywords)]

    def described(self, entry: dict[str, Any]) -> dict[str, Any]:
        data = self.store[entry["name"]].getvalue() + (b"x" if self.lies else b"")
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        large = entry["name"].endswith(".safetensors")
        lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} if large else None
        return {**entry, "blob_id": blob, "lfs": lfs}


fsspec.register_implementation("hub", Hub, clobber=True)


def test_the_hub_s_hashes_are_compared_and_recorded(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, hub = tmp_path / "out", address.replace("memory", "hub")
    manifest = lay_out_checkpoint(hub, out, **A4W4)
    for source in manifest.sources:
        data = (tmp_path / "checkpoint" / source.name).read_bytes()
        assert dict(source.identity) == {"sha256": hashlib.sha256(data).hexdigest()}
    assert verify_laid_out(out, against=hub).verdict == "ok"
    assert verify_laid_out(out, against=tmp_path / "checkpoint").verdict == "ok"
    monkeypatch.setattr(Hub, "lies", True)
    with pytest.raises(StaleError, match="hash or ETag differs"):
        open_laid_out(out, 0, checkpoint=hub, **A4W4)
    with pytest.raises(CheckpointError, match=r"came with other bytes: its (git|sha256) differs"):
        lay_out_checkpoint(hub, tmp_path / "other", **A4W4)
    assert not list((tmp_path / "other").glob("*.safetensors"))


def test_the_hub_s_cache_names_its_blobs_by_hash(address: str, tmp_path: Path) -> None:
    manifest = lay_out_checkpoint(address.replace("memory", "hub"), tmp_path / "out", **A4W4)
    snapshot = tmp_path / "hub" / "snapshots" / "revision"
    shutil.copytree(tmp_path / "checkpoint", snapshot)
    (tmp_path / "hub" / "blobs").mkdir()
    for source in manifest.sources:
        blob = tmp_path / "hub" / "blobs" / source.identity["sha256"]
        (snapshot / source.name).rename(blob)
        (snapshot / source.name).symlink_to(f"../../blobs/{blob.name}")
    assert identity_of_link(snapshot / source.name) == dict(source.identity)
    open_laid_out(tmp_path / "out", 0, checkpoint=snapshot, **A4W4)
    blob.rename(blob.with_name("0" * 64))
    (snapshot / source.name).unlink()
    (snapshot / source.name).symlink_to("../../blobs/" + "0" * 64)
    with pytest.raises(StaleError, match="the Hub's cache says another hash"):
        open_laid_out(tmp_path / "out", 0, checkpoint=snapshot, **A4W4)


@pytest.mark.parametrize(
    ("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("hf", "huggingface_hub"), ("abfs", "adlfs")]
)
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, package: str) -> None:
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CheckpointError, match=rf"{scheme}://models/x: needs {package}: pip install {package} \("):
        lay_out_checkpoint(f"{scheme}://models/x", tmp_path / "out", **A4W4)
    assert not (tmp_path / "out").exists()


def test_no_checkpoint_is_noticed_before_anything_is_fetched(address: str, tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    system.rm("/models/small/config.json")
    with pytest.raises(CheckpointError, match=r"memory://models/small: there is no config\.json"):
        lay_out_checkpoint(address, tmp_path / "out", **A4W4)
    system.rm("/models/small/model.safetensors.index.json")
    system.pipe("/models/small/config.json", b"{}")
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors\.index\.json nor model\.safetensors"):
        lay_out_checkpoint(address, tmp_path / "out", **A4W4)
    assert not (tmp_path / "out").exists()


def test_too_little_room_is_noticed_before_anything_is_fetched(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1000, 0, 1000))
    with pytest.raises(CheckpointError, match=r"bytes are fetched, and 1,000 are free; nothing was fetched"):
        lay_out_checkpoint(address, tmp_path / "out", **A4W4)


def test_identities_are_compared_by_the_strongest_kind() -> None:
    assert same_identity({"etag": "a", "md5": "m"}, {"etag": "b", "md5": "m"}) is True
    assert same_identity({"etag": "a"}, {"etag": "b", "sha256": "s"}) is False
    assert same_identity({"etag": "a"}, {"git": "b"}) is None
    assert same_identity({}, {}) is None


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:secret@host/model?token=x", "http://host/model"),
        ("hf://org/model@main", "hf://org/model@main"),
        ("hf://model@main", "hf://model@main"),
        ("s3://bucket/a@b:c", "s3://bucket/a@b:c"),
    ],
)
def test_passwords_are_in_no_message(address: str, shown: str) -> None:
    assert without_password(address) == shown
