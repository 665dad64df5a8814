"""The command itself: help, version, unknown words, and that no traceback ever reaches a user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api import cli
from preshuffle.api.commands import COMMANDS

QUERY = ["--model", "openai/gpt-oss-120b", "--arch", "gfx950", "--activation-dtype", "fp4x2"]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESHUFFLE_BOOK", "PRESHUFFLE_TABLES", "PRESHUFFLE_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command that must fail: nothing on stdout, one clear text on stderr."""
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("preshuffle: ")
    assert "Traceback" not in err
    return code, err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


def test_no_command_is_help_and_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: preshuffle" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    first = capsys.readouterr().out
    assert cli.main(["help", command]) == 0
    assert capsys.readouterr().out == first
    assert first.startswith(f"usage: preshuffle {command}")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("preshuffle 0.")


def test_an_unknown_command_names_the_nearest_and_all(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = failed(capsys, "resolv")
    assert code == 2
    assert err.count("\n") == 1
    assert "did you mean resolve?" in err
    assert all(name in err for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--frob"], ["unknown option '--frob'"]),
        (["resolve", "--moddel", "x"], ["unknown argument --moddel", "did you mean --model?", "--help"]),
        (["resolve", *QUERY, "--act", "bf16"], ["unknown argument --act"]),
        (["layouts"], ["(list|show)"]),
        (["layouts", "shwo"], ["invalid choice", "list", "show"]),
        (["registry", "frob"], ["check", "show", "diff", "schema"]),
        (["kernels", "predict"], ["--calls"]),
        (["explain", *QUERY, "--json", "--text"], ["not allowed with"]),
    ],
)
def test_a_wrong_command_line_is_one_line(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = failed(capsys, *arguments)
    assert code == 2
    assert err.count("\n") == 1
    assert [word for word in words if word not in err] == []


def test_a_bug_is_one_line_and_70(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_arguments: list[str]) -> int:
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr(cli, "_dispatch", broken)
    code, err = failed(capsys, "resolve")
    assert code == 70
    assert "bug" in err
    assert "ZeroDivisionError: first" in err
    assert err.count("\n") == 1
    monkeypatch.setenv("PRESHUFFLE_DEBUG", "1")
    assert cli.main(["resolve"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupted)
    assert cli.main(["resolve"]) == 130
    assert capsys.readouterr() == ("", "")


def test_control_characters_of_the_input_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = failed(capsys, "resolve", "--model", "\x1b[2Jx", "--arch", "gfx950")
    assert code == 1
    assert "\x1b" not in err
    assert "\\x1b[2Jx" in err


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PRESHUFFLE_")}
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-m", "preshuffle.api.cli", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **options,
    )
    return done


def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    done = process("resolve", *QUERY, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith('{"recipe":"mxfp4.sep16"')
    assert done.stdout.count("\n") == 1


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    command = f"{sys.executable} -m preshuffle.api.cli registry schema | head -c 10; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode in (0, 141)


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    command = [
        sys.executable.encode(),
        b"-m",
        b"preshuffle.api.cli",
        b"resolve",
        b"--model",
        b"\xff",
        b"--arch",
        b"gfx950",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"preshuffle: --model: ")
    assert b"Traceback" not in done.stderr


def test_nothing_heavy_is_imported_to_resolve(tmp_path: Path) -> None:
    program = (
        "import sys; from preshuffle.api.cli import main; "
        f"code = main({['resolve', *QUERY, '--json']!r}); "
        "heavy = {'torch', 'numpy', 'fastapi', 'sqlalchemy', 'jinja2', 'httpx', 'aiter', 'triton'} & set(sys.modules); "
        "print(code, sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == "0 []\n"


def test_auto_tables_are_what_aiter_would_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import argparse

    from preshuffle.api.commands.options.books import chosen_tables

    args = argparse.Namespace(tables=["auto"])
    monkeypatch.delenv("AITER_CONFIG_FMOE", raising=False)
    assert chosen_tables(args) == "auto"
    monkeypatch.setenv("AITER_CONFIG_FMOE", "/a/tuned.csv:/b/more.csv")
    assert chosen_tables(args) == ["/a/tuned.csv", "/b/more.csv"]
