"""``preshuffle check`` on what a replica sends to the service, and the schemas of what it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import validator_for

from preshuffle.api.cli import main
from preshuffle.api.fleet import INPUT_FORMS, ReplicaCheck, ReplicaReport
from preshuffle.registry import Registry

RIGHT: dict[str, Any] = {
    "query": {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2", "aiter": "0.1.20"},
    "applied": {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "sep16", "is_shuffled": True}}},
}
WRONG: dict[str, Any] = {**RIGHT, "applied": {**RIGHT["applied"], "gate_mode": "interleave"}}
REPORT: dict[str, Any] = {
    "groups": [{"layers": "0-34", "observation": RIGHT}, {"layers": "35", "observation": WRONG}],
    "node": "mi355x-07",
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESHUFFLE_BOOK", "PRESHUFFLE_TABLES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")


def write(path: Path, value: object) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def test_a_report_is_checked_group_by_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "report.json", REPORT)
    assert main(["check", file]) == 1
    out = capsys.readouterr().out
    assert out.index("layers 0-34") < out.index("ok") < out.index("layers 35") < out.index("mismatch")
    assert main(["check", file, "--json"]) == 1
    answer = ReplicaCheck.model_validate_json(capsys.readouterr().out)
    assert answer.verdict == "mismatch"
    registry, report = Registry.default(), ReplicaReport.parse(REPORT)
    expected = [(group.layers, registry.check(group.observation)) for group in report.groups]
    assert [(group.layers, group.report) for group in answer.groups] == expected


def test_options_replace_the_query_of_every_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "report.json", REPORT)
    assert main(["check", file, "--arch", "gfx1100"]) == 1
    assert capsys.readouterr().out.count("gfx1100,") == 2
    assert main(["check", file, "--tp", "x"]) == 2
    assert capsys.readouterr().err.count("--tp: ") == 1


def test_a_batch_has_a_line_for_each_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.json", REPORT)
    write(tmp_path / "b.json", RIGHT)
    assert main(["check", str(tmp_path), "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(Path(line["file"]).name, line.get("layers"), line["report"]["verdict"]) for line in lines] == [
        ("a.json", "0-34", "ok"),
        ("a.json", "35", "mismatch"),
        ("b.json", None, "ok"),
    ]
    assert main(["check", str(tmp_path)]) == 1
    assert "2 files with 2 groups of layers: 1 mismatch, 2 ok" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"groups": []}, ["report.json:1:2: groups"]),
        ({"groups": [{"layers": "0-3"}]}, ["groups.0.observation: missing"]),
        ({"groups": [{"layers": "0-3", "observation": {**RIGHT, "aplied": {}}}]}, ["groups.0.observation.aplied"]),
        ({"noode": "x"}, ["noode: unknown field", "node"]),
        ({"groups": [REPORT["groups"][0]] * 2}, ["layer 0 is in groups.0 and in groups.1"]),
    ],
)
def test_a_wrong_report_names_the_place(
    change: dict[str, Any], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", write(tmp_path / "report.json", {**REPORT, **change})]) == 2
    err = capsys.readouterr().err
    assert [word for word in words if word not in err] == []


@pytest.mark.parametrize("what", INPUT_FORMS)
def test_a_schema_describes_its_example_and_its_example_is_taken(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["registry", "schema", what]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert main(["registry", "schema", what, "--example"]) == 0
    text = capsys.readouterr().out
    validator_for(schema).validate(json.loads(text))
    assert schema["examples"] == [json.loads(text)]
    assert not validator_for(schema).is_valid({"unknown": 1})
    (tmp_path / "example.json").write_text(text)
    if what != "conformance-report":  # what a command writes and a service keeps
        assert main(["resolve" if what == "query" else "check", str(tmp_path / "example.json")]) == 0
    capsys.readouterr()


def test_the_book_has_skeletons_for_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", "schema", "book", "--example"]) == 2
    assert "preshuffle registry new" in capsys.readouterr().err
    assert main(["registry", "schema", "obervation"]) == 2
    assert "did you mean observation?" in capsys.readouterr().err
