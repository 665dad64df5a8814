"""``preshuffle check``: where observations come from, what is printed, and how it ends."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.cli import main
from preshuffle.registry import Observation, Query, Registry, Report, observation_of
from preshuffle.registry.values.report import MEANINGS, worst

WRONG: dict[str, Any] = {
    "query": {"model": "openai/gpt-oss-120b", "arch": "gfx950", "tp": 1, "aiter": "0.1.14"},
    "applied": {
        "gate_mode": "separated",
        "tensors": {"w13_weight": {"layout": "gui16"}, "w13_weight_scale": {"layout": "e8_gui16"}},
    },
}
QUERY = Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2", tp=2, aiter="0.1.20")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESHUFFLE_BOOK", "PRESHUFFLE_TABLES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")


def right() -> dict[str, Any]:
    registry = Registry.default()
    seen = observation_of(registry.resolve(QUERY), QUERY)
    value: dict[str, Any] = json.loads(seen.model_dump_json(exclude_unset=True))
    return value


def write(path: Path, value: object) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def test_json_is_the_report_of_the_registry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value, code in ((WRONG, 1), (right(), 0), ({"query": WRONG["query"]}, 3)):
        assert main(["check", write(tmp_path / "seen.json", value), "--json"]) == code
        report = Report.model_validate_json(capsys.readouterr().out)
        assert report == Registry.default().check(Observation.parse(value))


def test_yaml_stdin_and_options_on_top(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = b"query: {model: my/own, arch: gfx950, tp: 8}\napplied: {gate_mode: separated}\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    options = ["--model", QUERY.model, "--env", "AITER_BF16_FP8_BOUND=5", "--aiter", "0.1.20"]
    assert main(["check", "-", *options, "--decide", "--json"]) == 0
    report = Report.model_validate_json(capsys.readouterr().out)
    assert [finding.code for finding in report.findings] == ["flag_unknown"]
    assert report.decision == Registry.default().resolve(
        Query(model=QUERY.model, arch="gfx950", tp=8, aiter="0.1.20", env={"AITER_BF16_FP8_BOUND": "5"})
    )


@pytest.mark.parametrize("width", [40, 80, 140])
def test_a_person_reads_verdict_finding_and_fix(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["check", write(tmp_path / "seen.json", WRONG)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("mismatch  openai/gpt-oss-120b on gfx950")
    assert max(map(len, lines[1:])) <= width
    words = " ".join(" ".join(lines).split())
    assert "layout_mismatch w13_weight bytes are gui16" in words
    assert "Fix: pass gate_mode=interleave, or lay w13_weight out as sep16" in words
    assert "\x1b" not in words


@pytest.mark.parametrize(("value", "verdict"), [({"query": WRONG["query"]}, "unknown"), (right(), "ok")])
def test_a_verdict_without_findings_says_what_it_means(
    value: dict[str, Any], verdict: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["check", write(tmp_path / "seen.json", value), "--decide"])
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith(verdict)
    assert MEANINGS[verdict] in out  # type: ignore[index]
    assert "what the registry decides" in out


def test_a_fault_is_named_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "seen.yaml"
    path.write_text("query:\n  model: m\n  arch: gfx950\n  tpp: 2\napplied:\n  gate_mode: interleaved\nmore: 1\n")
    assert main(["check", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{path}:4:3: query.tpp: unknown field" in err
    assert f"{path}:6:3: applied.gate_mode: 'interleaved' is not one of the valid values" in err
    assert f"{path}:7:1: more: unknown field; valid: query, applied" in err
    assert main(["check", str(path), "--tp", "none"]) == 2
    assert "--tp: " in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "query: 5", "query: [1", '{"applied": {}}', "\xff"])
def test_what_is_no_observation(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "seen.json"
    path.write_bytes(text.encode("latin-1"))
    assert main(["check", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"preshuffle: {path}")


def test_a_batch_is_a_line_each_and_the_worst_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.json", right())
    write(tmp_path / "b.yaml", {"query": WRONG["query"]})
    assert main(["check", str(tmp_path)]) == 3
    write(tmp_path / "c.json", WRONG)
    (tmp_path / "notes.txt").write_text("not one of them")
    assert main(["check", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == "3 files: 1 mismatch, 1 unknown, 1 ok"
    broken = write(tmp_path / "d.json", [])
    assert main(["check", str(tmp_path), "--json"]) == 2
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["a.json", "b.yaml", "c.json", "d.json"]
    assert [line.get("report", {}).get("verdict") for line in lines] == ["ok", "unknown", "mismatch", None]
    assert lines[-1]["error"].startswith(broken)
    assert main(["check", broken, str(tmp_path / "a.json")]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "2 files: 1 ok, 1 bad input"
    assert err.startswith(f"preshuffle: {broken}: ")


def test_what_cannot_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = write(tmp_path / "seen.json", WRONG)
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, said in (
        ([], "no observation given"),
        (["-", "-"], "read once only"),
        ([str(empty)], "no observation in this folder"),
        ([str(tmp_path / "none.json")], "cannot be read"),
        ([seen, "--explain", "tag_lost"], "cannot be combined with an observation"),
        (["--score", str(empty)], "no incident case"),
    ):
        assert main(["check", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_a_code_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--explain", "tag_lost"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tag_lost  error")
    assert "why it matters" in out
    assert "https://" in out
    assert main(["check", "--explain", "tag_lost", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["severity"] == "error"
    assert main(["check", "--explain", "tag_lots"]) == 2
    assert "unknown code 'tag_lots'; did you mean tag_lost" in capsys.readouterr().err


def test_a_score_counts_what_is_as_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expect = {"codes": ["layout_mismatch"], "verdict": ["mismatch"]}
    write(tmp_path / "wrong.json", {"id": "wrong", "observation": WRONG, "expect": expect})
    assert main(["check", "--score", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 of 1 as expected\n"
    write(tmp_path / "missed.json", {"id": "missed", "observation": right(), "expect": expect})
    assert main(["check", "--score", str(tmp_path)]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert (first, last) == ("missed: layout_mismatch is missing; verdict ok, expected mismatch", "1 of 2 as expected")
    assert main(["check", "--score", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] == 1


def test_the_worst_verdict() -> None:
    assert worst(["ok", "unsupported", "mismatch", "unknown"]) == "mismatch"
    assert worst([]) == "unknown"


def test_notes_on_the_engine_stand_below_the_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    observed = {**right(), "query": {**right()["query"], "engine": "vlm@0.33.0"}}
    path = write(tmp_path / "observed.json", observed)
    main(["check", path])
    assert "unknown engine 'vlm'; did you mean vllm" in capsys.readouterr().out
    main(["check", path, "--json"])
    assert "unknown engine 'vlm'; did you mean vllm" in capsys.readouterr().out
