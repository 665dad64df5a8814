"""``preshuffle kernels predict``: one line out per line in."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.cli import main
from preshuffle.registry.kernels import DispatchCall, KernelTables, dispatch

CALL: dict[str, Any] = {
    "gfx": "gfx950",
    "cu_num": 256,
    "tokens": 16,
    "model_dim": 3072,
    "inter_dim": 3072,
    "expert": 128,
    "topk": 4,
    "activation": "Swiglu",
    "weight_dtype": "fp4x2",
    "quant_type": "per_1x32",
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESHUFFLE_TABLES", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def lines_of(folder: Path, *lines: object) -> str:
    path = folder / "calls.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(path)


def predicted(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    assert main(["kernels", "predict", *arguments, "--json"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return [json.loads(line) for line in out.splitlines()]


def test_one_line_out_per_line_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls = [{**CALL, "tokens": tokens} for tokens in (1, 300, 16384)]
    path = lines_of(tmp_path, calls[0], {"id": 7, "in": calls[1], "out": {}}, calls[2])
    expected = [dispatch(DispatchCall(**call), None).model_dump(mode="json") for call in calls]
    assert predicted(capsys, "--calls", path) == expected


def test_tables_from_options_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = KernelTables.from_installed_aiter()
    row = next(row for row in tables.rows if row.gfx == "gfx942" and row.q_type.endswith("per_Token"))
    call = {**CALL, "gfx": row.gfx, "cu_num": row.cu_num, "tokens": row.token}
    path = lines_of(tmp_path, call)
    (answer,) = predicted(capsys, "--calls", path, "--tables", "auto")
    assert answer["tuned"] is not None
    monkeypatch.setenv("PRESHUFFLE_TABLES", "auto")
    assert predicted(capsys, "--calls", path) == [answer]
    (without,) = predicted(capsys, "--calls", path, "--tables", str(_empty_table(tmp_path)))
    assert without["tuned"] is False


def _empty_table(folder: Path) -> Path:
    from preshuffle.registry.kernels.tables.rows import KEY_COLUMNS, VALUE_COLUMNS

    path = folder / "tuned_fmoe.csv"
    path.write_text(",".join([*KEY_COLUMNS, *VALUE_COLUMNS]) + "\n")
    return path


def test_a_version_for_calls_that_name_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lines_of(tmp_path, CALL, {**CALL, "aiter": "0.1.14"})
    old, own = predicted(capsys, "--calls", path, "--aiter", "0.1.16")
    expected = [dispatch(DispatchCall(**CALL, aiter=version), None) for version in ("0.1.16", "0.1.14")]
    assert [old, own] == [choice.model_dump(mode="json") for choice in expected]


def test_a_bad_line_is_named_and_the_others_are_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lines_of(tmp_path, "{", "[1]", "", {**CALL, "tokens": -1}, {**CALL, "frob": 1}, CALL, {"in": 3})
    answers = predicted(capsys, "--calls", path, code=2)
    wrong = {answer["line"]: answer["error"] for answer in answers if "line" in answer}
    assert set(wrong) == {1, 2, 4, 5, 7}
    assert wrong[1].startswith("not valid JSON")
    assert "found list" in wrong[2]
    assert wrong[4].startswith("tokens: ")
    assert wrong[5] == "frob: unknown field"
    assert len(answers) == 6
    assert answers[4]["stage1"]


def test_standard_input_and_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(CALL) + "\n{\n"))
    assert main(["kernels", "predict", "--calls", "-"]) == 2
    out = capsys.readouterr().out
    assert "cktile_moe_stage1" in out
    assert "not valid JSON" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--calls", "/no/such"], ["/no/such: cannot be read: No such file"]),
        (["--calls", "/"], ["Is a directory"]),
        (["--calls", "-", "--aiter", "x"], ["--aiter", "'x' is not a version"]),
        (["--calls", "-", "--tables", "/no/such"], ["/no/such"]),
    ],
)
def test_bad_input_is_named(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "predict", *arguments, "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["exit_code"] == 2
    assert err.startswith("preshuffle: ")
    assert [word for word in words if word not in err] == []
