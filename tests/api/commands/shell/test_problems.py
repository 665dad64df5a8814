"""Failures with ``--json``: a problem document on standard output, and the exit code of the text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api import cli
from preshuffle.registry import Registry

KNOWN = ["--model", "openai/gpt-oss-120b"]
CASES: list[tuple[list[str], int, str]] = [
    (["resolve", "--model", "nosuch", "--arch", "gfx950"], 1, "no-recipe"),
    (["resolve", *KNOWN, "--arch", "gfx95"], 1, "no-recipe"),
    (["resolve", *KNOWN, "--arch", "gfx950", "--activation-dtype", "fp4"], 2, "invalid-input"),
    (["resolve", "none.json"], 2, "invalid-input"),
    (["resolve"], 2, "invalid-command"),
    (["resolve", "--modle", "x"], 2, "invalid-command"),
    (["resolve", *KNOWN, "--arch", "gfx950", "--book", "broken.yaml"], 2, "invalid-book"),
    (["check", "none.json"], 2, "invalid-input"),
    (["check", "--explain", "untund"], 2, "invalid-input"),
    (["layouts", "show", "sep61"], 2, "invalid-command"),
    (["kernels", "predict"], 2, "invalid-command"),
    (["kernels", "coverage", "openai/gpt-oss-120"], 1, "no-recipe"),
    (["identify", "--plain", "none", "--live", "none"], 2, "invalid-input"),
    (["registry", "show", "recipes", "mxfp4.sep61"], 2, "invalid-command"),
    (["deployments"], 2, "invalid-command"),
    (["deployments", "--server", "http://127.0.0.1:9"], 3, "service-unavailable"),
]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PRESHUFFLE_BOOK", "PRESHUFFLE_TABLES", "PRESHUFFLE_SERVER", "PRESHUFFLE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    Path("broken.yaml").write_text("recipse: {}\n")


@pytest.mark.parametrize(
    ("arguments", "code", "kind"), CASES, ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None
)
def test_a_failure_is_a_problem_document(
    arguments: list[str], code: int, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == code
    text = capsys.readouterr()
    assert cli.main([*arguments, "--json"]) == code
    out, err = capsys.readouterr()
    assert (text.out, text.err) == ("", err)
    problem: dict[str, Any] = json.loads(out)
    assert (problem["type"], problem["exit_code"]) == (f"urn:preshuffle:problem:{kind}", code)
    assert problem["title"]
    assert problem["detail"].splitlines()[0] in err
    assert out.count("\n") == 1


def test_fields_and_nearest_rules_are_members(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["resolve", *KNOWN, "--arch", "gfx950", "--activation-dtype", "fp4", "--json"])
    (fault,) = json.loads(capsys.readouterr().out)["problems"]
    assert fault["field"] == "--activation-dtype"
    assert "fp4x2" in fault["valid"]
    cli.main(["resolve", "--model", "nosuch", "--arch", "gfx950", "--json"])
    problem = json.loads(capsys.readouterr().out)
    assert problem["status"] == 404
    assert {"rule", "recipe", "why_not"} == set(problem["nearest"][0])
    assert "weight_dtype" in problem["missing"]
    cli.main(["resolve", *KNOWN, "--arch", "gfx950", "--book", "broken.yaml", "--json"])
    assert json.loads(capsys.readouterr().out)["problems"][0]["field"] == "broken.yaml:1:1"


def test_a_bug_is_one_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_options: object) -> Registry:
        raise ZeroDivisionError("first")

    monkeypatch.setattr(Registry, "load", broken)
    assert cli.main(["layouts", "list", "--json"]) == 70
    problem = json.loads(capsys.readouterr().out)
    assert (problem["type"], problem["exit_code"]) == ("urn:preshuffle:problem:internal", 70)
    assert "ZeroDivisionError" in problem["detail"]
