"""``preshuffle conform``: a table, JSON, a report's file, errors of one line, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from preshuffle.api.cli import main
from preshuffle.api.commands.conform import _Progress
from preshuffle.registry.values.conformance import ConformanceReport
from support.aiter.trees import wheel_or_skip

QUICK = ["conform", "--only", "features,tables"]


@pytest.fixture(autouse=True)
def _wheel() -> None:
    wheel_or_skip()


def test_a_table_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(QUICK) == 0
    captured = capsys.readouterr()
    assert "AITER 0.1.7.post2.dev18  installed" in captured.out
    assert "agrees: " in captured.out
    assert "report sha256:" in captured.out
    assert "preshuffle: features" in captured.err


def test_json_and_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert main([*QUICK, "--json", "--report", str(file)]) == 0
    report = ConformanceReport.model_validate_json(capsys.readouterr().out)
    assert ConformanceReport.model_validate_json(file.read_text(encoding="utf-8")) == report
    assert list(report.claims) == ["features", "tables"]


def test_a_book_that_the_code_contradicts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wrong = {
        "features": {
            "is_shuffled_dispatch": {
                "title": "wrong",
                "since": "0.1.6",
                "probe": {"module": "aiter.fused_moe", "text": "is_shuffled"},
            }
        }
    }
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong), encoding="utf-8")
    assert main([*QUICK, "--book", str(tmp_path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    (found,) = report["claims"]["features"]["disagreements"]
    assert found["entry"] == "features.is_shuffled_dispatch.since"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "byte"], "valid: features, bytes"),
        (["--calls", "many"], "valid: 0..10000000"),
        (["--engine", "vllm@"], "behind the @ a version, a folder or a wheel"),
        (["--aiter", "/nowhere"], "no such folder or wheel"),
        (["--report", "/nowhere/report.json"], "not a file in an existing folder"),
        (["--aiter", "."], "holds no aiter/fused_moe.py"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_nothing_that_could_be_run_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", "--only", "probe", "--json"]) == 3
    out = capsys.readouterr().out
    assert "golden layers" in out
    report = ConformanceReport.model_validate_json(out)
    assert (report.verdict, report.summary()) == ("not known", "nothing could be run here")


def test_progress_never_counts_more_than_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    _Progress()("bytes", 303, 219, "")
    assert "219 of 219" in capsys.readouterr().err
