"""``preshuffle serve``: its options are the service's settings, and what prevents a start is one clear line."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from preshuffle.api import app
from preshuffle.api.cli import main
from preshuffle.api.settings import Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"PRESHUFFLE_{name.upper()}", raising=False)


def started(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Settings:
    seen: list[Settings] = []
    monkeypatch.setattr(app, "serve", seen.append)
    assert main(["serve", *arguments]) == 0
    return seen[0]


def test_options_win_over_the_environment_and_that_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started(monkeypatch) == Settings()
    monkeypatch.setenv("PRESHUFFLE_PORT", "9000")
    monkeypatch.setenv("PRESHUFFLE_BOOK", "a:b")
    assert started(monkeypatch) == Settings(port=9000, book=("a", "b"))
    options = [
        "--port",
        "0",
        "--book",
        "c",
        "--book",
        "d",
        "--tables",
        "auto",
        "--db",
        "sqlite:///x.db",
        "--host",
        "::1",
    ]
    expected = Settings(port=0, book=("c", "d"), tables=("auto",), db="sqlite:///x.db", host="::1")
    assert started(monkeypatch, *options) == expected


def test_every_setting_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    out = capsys.readouterr().out
    assert [name for name in Settings.model_fields if f"--{name.replace('_', '-')}" not in out] == []


def test_json_is_the_settings_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "serve", lambda _settings: print("preshuffle serves"))
    assert main(["serve", "--json", "--port", "0"]) == 0
    out, err = capsys.readouterr()
    assert Settings.model_validate_json(out) == Settings(port=0)
    assert err == "preshuffle serves\n"


def test_a_port_in_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "--port", str(port), "--db", f"sqlite:///{tmp_path}/x.db"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("preshuffle: ")
    assert str(port) in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "x"], ["--port", "'x'"]),
        (["--port", "70000"], ["--port", "65535"]),
        (["--book", "/no/such"], ["/no/such: "]),
        (["--tables", "/no/such.csv"], ["/no/such.csv"]),
        (["--db", f"sqlite:///{__file__}"], [Path(__file__).name]),
    ],
)
def test_what_prevents_a_start_is_named(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("preshuffle: ")
    assert "Traceback" not in err
    assert [word for word in words if word not in err] == []


def test_it_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PRESHUFFLE_")}
    command = [sys.executable, "-m", "preshuffle.api.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.search(r"http://\S+", line)
            assert match, line
            with urllib.request.urlopen(f"{match[0]}/healthz", timeout=60) as response:
                assert response.status == 200
            query = "model=openai/gpt-oss-120b&arch=gfx950&activation_dtype=fp4x2"
            with urllib.request.urlopen(f"{match[0]}/v1/resolve?{query}", timeout=60) as response:
                assert json.load(response)["recipe"] == "mxfp4.sep16"
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
