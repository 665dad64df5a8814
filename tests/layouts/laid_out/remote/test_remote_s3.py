"""Checkpoints on S3, with moto's server in its place: hashes, resumed runs, and one error for each failure."""

from __future__ import annotations

import json
import signal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from preshuffle.layouts import CheckpointError
from preshuffle.layouts.laid_out import (
    LaidOutError,
    Manifest,
    RunEvent,
    StaleError,
    lay_out_checkpoint,
    open_laid_out,
    verify_laid_out,
)
from support.tensors.laid_out import contents
from support.tensors.lay_out_process import FIELDS, lay_out_in_process

fsspec = pytest.importorskip("fsspec")
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
pytest.importorskip("moto.server", reason="moto[s3,server] is not installed")

SECOND = "model-00002-of-00002.safetensors"


@pytest.fixture
def system(endpoint: str, local: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    options = {"endpoint_url": endpoint, "key": "test", "secret": "test"}
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    found = fsspec.filesystem("s3")
    if not found.exists("models"):
        found.mkdir("models")
        for path in (local / "checkpoint").iterdir():
            found.pipe(f"models/small/{path.name}", path.read_bytes())
    else:  # what a test may have changed
        found.pipe(f"models/small/{SECOND}", (local / "checkpoint" / SECOND).read_bytes())
    return found


def counted_reads(system: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    reads: list[str] = []
    whole = system.cat_file

    def reading(path: str, **edges: Any) -> Any:
        reads.append(path)
        return whole(path, **edges)

    monkeypatch.setattr(system, "cat_file", reading)
    return reads


def test_a_checkpoint_on_s3_gives_what_a_folder_gives(system: Any, local: Path, tmp_path: Path) -> None:
    events: list[RunEvent] = []
    manifest = lay_out_checkpoint("s3://models/small", tmp_path / "out", listener=events.append, **FIELDS)
    assert events[-1].event == "finished"
    (fetched,) = [event for event in events if event.event == "fetched"]
    assert fetched.done == fetched.total == sum(path.stat().st_size for path in (local / "checkpoint").iterdir())
    found, wanted = contents(tmp_path / "out"), contents(local / "out")
    assert {**found, "manifest.json": b""} == {**wanted, "manifest.json": b""}
    assert manifest.key == Manifest.read(local / "out").key
    tags = {one.name: dict(one.identity) for one in manifest.sources}
    assert tags[SECOND] == {"etag": system.info(f"models/small/{SECOND}")["ETag"].strip('"')}


def test_a_source_is_compared_without_being_read(
    system: Any, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    lay_out_checkpoint("s3://models/small", out, **FIELDS)
    reads = counted_reads(system, monkeypatch)
    open_laid_out(out, 0, checkpoint="s3://models/small", **FIELDS)
    assert verify_laid_out(out, against="s3://models/small").verdict == "ok"
    assert not reads
    # made of a folder, nothing is known of the bytes: headers are read
    assert verify_laid_out(local / "out", against="s3://models/small").verdict == "ok"
    assert sorted(reads) == [f"models/small/model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    data = (local / "checkpoint" / SECOND).read_bytes()
    system.pipe(f"models/small/{SECOND}", data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(StaleError, match=f"models/small/{SECOND}: not the file that was laid out: its hash or ETag"):
        open_laid_out(out, 0, checkpoint="s3://models/small", fallback=True, **FIELDS)
    (problem,) = verify_laid_out(out, against="s3://models/small").problems
    assert problem.file == SECOND
    with pytest.raises(LaidOutError, match="give a folder"):
        verify_laid_out(out, against="s3://models/small", full=True)


def stopped(address: str, out: Path, kind: str) -> None:
    def stop(event: RunEvent) -> None:
        if event.event == kind:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lay_out_checkpoint(address, out, workers=1, listener=stop, **FIELDS)
    assert not (out / "manifest.json").exists()


def test_a_run_that_was_stopped_goes_on(
    system: Any, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped("s3://models/small", tmp_path / "out", "file")
    reads = counted_reads(system, monkeypatch)
    lay_out_checkpoint("s3://models/small", tmp_path / "out", **FIELDS)
    assert not reads
    assert not (tmp_path / "out" / ".unfinished").exists()


def test_a_source_that_changes_between_runs_is_refused(system: Any, local: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped("s3://models/small", out, "file")
    data = (local / "checkpoint" / SECOND).read_bytes()
    system.pipe(f"models/small/{SECOND}", data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=rf"models/small/{SECOND}: is not the file that the run in .*out began"):
        lay_out_checkpoint("s3://models/small", out, **FIELDS)
    system.pipe(f"models/small/{SECOND}", data)
    lay_out_checkpoint("s3://models/small", out, **FIELDS)


@pytest.mark.parametrize("change", ["replaced", "gone"])
def test_a_source_that_changes_while_it_is_fetched_is_refused(
    system: Any, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    whole, data = system.cat_file, (local / "checkpoint" / SECOND).read_bytes()

    def reading(path: str, **edges: Any) -> Any:
        found = whole(path, **edges)
        if path.endswith(SECOND):
            if change == "gone":
                system.rm(path)
            else:
                system.pipe(path, data[:-1] + bytes([data[-1] ^ 1]))
        return found

    monkeypatch.setattr(system, "cat_file", reading)
    message = "vanished while" if change == "gone" else "changed while it was fetched"
    with pytest.raises(CheckpointError, match=f"models/small/{SECOND}: {message}"):
        lay_out_checkpoint("s3://models/small", tmp_path / "out", **FIELDS)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".unfinished"}


def failing(name: str) -> Exception:
    boto, errors = import_module("botocore.exceptions"), import_module("s3fs.errors")

    def of_code(code: str) -> Exception:
        found: Exception = errors.translate_boto_error(boto.ClientError({"Error": {"Code": code}}, "GetObject"))
        return found

    made: dict[str, Exception] = {
        "denied": of_code("AccessDenied"),
        "gone": of_code("NoSuchKey"),
        "timeout": boto.ReadTimeoutError(endpoint_url="http://s3"),
        "stuck": TimeoutError(),
        "credentials": boto.NoCredentialsError(),
        "network": boto.EndpointConnectionError(endpoint_url="http://s3"),
        "bug": RuntimeError("first\nsecond"),
    }
    return made[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("denied", "access denied"),
        ("gone", "it is not there"),
        ("timeout", "timed out"),
        ("stuck", "timed out"),
        ("credentials", "credentials"),
        ("network", "connect"),
        ("bug", "first$"),
    ],
)
def test_what_goes_wrong_is_one_line(
    system: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    def raising(*arguments: Any, **keywords: Any) -> Any:
        raise failing(name)

    for method in ("cat_file", "ls") if name in ("denied", "timeout") else ("ls",):
        monkeypatch.setattr(system, method, raising)
        with pytest.raises(CheckpointError, match=rf"models/small.*: cannot be read: .*{message}") as raised:
            lay_out_checkpoint("s3://models/small", tmp_path / method, **FIELDS)
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "ls").exists()
    assert not [path for path in tmp_path.glob("cat_file/**/*") if path.is_file() and "lock" not in path.name]


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"endpoint_url": "http://127.0.0.1:9", "key": "test", "secret": "test"}
    monkeypatch.setitem(
        fsspec.config.conf, "s3", {**options, "config_kwargs": {"connect_timeout": 0.2, "retries": {"max_attempts": 0}}}
    )
    with pytest.raises(CheckpointError, match=r"s3://models/small: cannot be read: .*127\.0\.0\.1:9"):
        lay_out_checkpoint("s3://models/small", tmp_path / "out", **FIELDS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("models/none", r"s3://models/none: "), ("nobucket/x", "s3://nobucket/x: cannot be read: it is not there")],
)
def test_what_is_not_there(system: Any, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        lay_out_checkpoint(f"s3://{name}", tmp_path / "out", **FIELDS)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("step", [8, 20, 40, 90])
def test_a_killed_run_resumes(system: Any, endpoint: str, local: Path, tmp_path: Path, step: int) -> None:
    keys = {"FSSPEC_S3_ENDPOINT_URL": endpoint, "FSSPEC_S3_KEY": "test", "FSSPEC_S3_SECRET": "test"}
    done = lay_out_in_process("s3://models/small", tmp_path / "out", "--at", step, **keys)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
    lay_out_checkpoint("s3://models/small", tmp_path / "out", **FIELDS)
    wanted = contents(local / "out")
    assert {**contents(tmp_path / "out"), "manifest.json": b""} == {**wanted, "manifest.json": b""}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["sources"][0]["identity"]
