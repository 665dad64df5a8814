"""The commands on whole checkpoints, from the command line."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.cli import main
from support.tensors.laid_out import checkpoint_with_others, contents

FIELDS = ["--arch", "MI355X", "--tp", "2", "--activation-dtype", "fp4x2"]

LONG = "x" * 300
"""A name that no file system looks up: as where a folder may not be read, asking whether it exists raises."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("commands")
    checkpoint_with_others(found / "checkpoint")
    assert main(["apply", str(found / "checkpoint"), str(found / "out"), *FIELDS]) == 0
    (found / "taken").mkdir()
    (found / "taken/model-00001-of-00002.safetensors").write_bytes(b"another model's")
    return found


def test_apply_says_what_it_wrote(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", str(folder / "checkpoint"), str(folder / "out"), *FIELDS]) == 0
    out = capsys.readouterr().out
    assert "mxfp4.sep16" in out
    assert "2 of experts, 0 to 1" in out
    assert " MB in " in out
    assert "activation_dtype match exactly" in " ".join(out.split())
    assert "sha256:" in out


def test_apply_prints_events_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", str(folder / "checkpoint"), str(folder / "events"), *FIELDS, "--no-others", "--json"]) == 0
    *events, result = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert events[0]["event"] == "started"
    assert events[-1]["event"] == "finished"
    assert {one["file"] for one in events if one["event"] == "file"} == {
        path.name for path in (folder / "events").glob("rank-*.safetensors")
    }
    assert (result["tp"], result["recipes"], result["files"]) == (2, ["mxfp4.sep16"], 4)


def test_apply_says_how_an_unknown_release_is_answered(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["apply", str(folder / "checkpoint"), str(folder / "later"), "--arch", "gfx950", "--engine", "vllm@99"]
    assert main([*command, "--activation-dtype", "bf16", "--json"]) == 0
    (reason,) = json.loads(capsys.readouterr().out.splitlines()[-1])["reasons"]
    assert "vllm 99 is answered as vllm " in reason


def test_verify_restore_and_convert(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, checkpoint = str(folder / "out"), str(folder / "checkpoint")
    assert main(["verify", out, "--against", checkpoint, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "ok"
    assert main(["restore", out, str(folder / "back")]) == 0
    assert contents(folder / "back") == contents(folder / "checkpoint")
    assert main(["convert", out, str(folder / "converted"), "--tp", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["tp"] == 4
    path = next((folder / "converted").glob("rank-tp3*00001.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["verify", str(folder / "converted"), "--seed", "7"]) == 1
    assert "cut short" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_run_that_resumes(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
) -> None:
    def stopping(*arguments: Any, **keywords: Any) -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    with monkeypatch.context() as patch:
        patch.setattr("preshuffle.layouts.laid_out.whole_checkpoint.finish", stopping)
        assert main(["apply", str(folder / "checkpoint"), str(tmp_path / "out"), *FIELDS]) == code
    assert capsys.readouterr().err == "preshuffle: stopped; the same command again resumes\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert main(["apply", str(folder / "checkpoint"), str(tmp_path / "out"), *FIELDS]) == 0
    assert contents(tmp_path / "out") == contents(folder / "out")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["apply", "{}/checkpoint", "{}/other", "--tp", "2"], 2, "--arch"),
        (["apply", "{}/checkpoint", "{}/other", "--arch", "gfx950", "--tp", "sixteen"], 2, "--tp"),
        (["apply", "{}/checkpoint", "{}/other", *FIELDS, "--workers", "0"], 2, "--workers"),
        (["apply", "{}/none", "{}/other", *FIELDS], 2, "none"),
        (["apply", "{}/checkpoint", "{}/out", "--arch", "gfx950"], 2, "another"),
        (["apply", "{}/checkpoint", "{}/other", *FIELDS, "--ray-address", "auto"], 2, "--executor ray"),
        (["convert", "{}/out", "{}/other", "--ray-address", "auto"], 2, "--executor ray"),
        (["apply", "{}/checkpoint", "{}/other", *FIELDS, "--executor", "ray", "--of", "2"], 2, "exclude each other"),
        (["apply", "{}/checkpoint", "{}/other", *FIELDS, "--index", "1"], 2, "--index needs --of"),
        (["apply", "{}/checkpoint", "{}/other", *FIELDS, "--of", "2"], 2, "JOB_COMPLETION_INDEX in the environment"),
        (["apply", "{}/checkpoint", "{}/other", *FIELDS, "--of", "0", "--index", "0"], 2, "--of '0'; valid: 1.."),
        (["apply", "{}/checkpoint", "{}/other", *FIELDS, "--of", "2", "--index", "2"], 2, "valid with --of 2: 0..1"),
        (["apply", "{}/checkpoint/config.json", "{}/other", *FIELDS], 2, "is no folder; a checkpoint is a folder"),
        (["apply", os.devnull, "{}/other", *FIELDS], 2, "is no folder"),
        (["apply", "org/model", "{}/other", *FIELDS], 2, "on the Hub it is hf://org/model"),
        (["apply", LONG, "{}/other", *FIELDS], 2, "File name too long"),
        (["apply", "{}/checkpoint", "{}/" + LONG, *FIELDS], 2, "File name too long"),
        (["verify", "{}/checkpoint"], 2, "holds no laid-out checkpoint; preshuffle apply makes one"),
        (["verify", LONG], 2, "File name too long"),
        (["restore", LONG, "{}/other"], 2, "File name too long"),
        (["restore", "{}/out", "{}/" + LONG], 2, "File name too long"),
        (["convert", LONG, "{}/other"], 2, "File name too long"),
        (["convert", "{}/out", "{}/" + LONG, "--tp", "1"], 2, "File name too long"),
        (["verify", "{}/out", "--samples", "-1"], 2, "samples"),
        (["restore", "{}/out", "{}/taken"], 2, "already"),
        (["convert", "{}/out", "{}/other", "--arch", "gfx90a"], 1, "gfx90a"),
    ],
)
def test_errors_are_one_line_that_says_what(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert main([argument.format(folder) for argument in arguments]) == code
    error = capsys.readouterr().err
    assert error.startswith("preshuffle: ")
    assert message in error
    assert not (folder / "other").exists()


def test_shares_by_the_index_of_a_job(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["apply", str(folder / "checkpoint"), str(folder / "shares"), *FIELDS, "--of", "2"]
    assert main([*command, "--index", "1", "--json"]) == 0
    *_, result = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (result["index"], result["of"], result["files"], result["missing"]) == (1, 2, 3, 3)
    assert main([*command, "--index", "1"]) == 0
    assert "share 1 of 2 is written, 3 files; 3 files of other shares are missing" in capsys.readouterr().out
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    assert main(command) == 0
    assert "mxfp4.sep16" in capsys.readouterr().out
    whole = contents(folder / "out")
    assert contents(folder / "shares") == {name: data for name, data in whole.items() if ".unfinished" not in name}


def test_a_cluster_that_is_not_there_is_found_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    command = ["apply", str(folder / "checkpoint"), str(folder / "cluster"), *FIELDS, "--executor", "ray"]
    assert main([*command, "--ray-address", address]) == 2
    assert f"no Ray cluster at {address}: Connection refused" in capsys.readouterr().err
    assert not (folder / "cluster").exists()
