"""``preshuffle kernels predict`` for a query, ``explain``, ``check`` and ``coverage``."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.cli import main
from preshuffle.registry import Query, Registry
from preshuffle.registry.kernels import DispatchCall, KernelTables, dispatch
from support.aiter.kernel_rows import GUI, MX, SEP, table, write

QUERY = ["--model", "openai/gpt-oss-120b", "--arch", "gfx950", "--activation-dtype", "fp4x2"]
FIELDS = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESHUFFLE_TABLES", "PRESHUFFLE_BOOK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "140")


@pytest.fixture
def configs(tmp_path: Path) -> str:
    return str(write(tmp_path / "configs", {"token": "512", "kernelName1": SEP}))


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["kernels", *arguments]) == code, capsys.readouterr()
    out, err = capsys.readouterr()
    assert err == ""
    return out


def answered(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    return json.loads(said(capsys, *arguments, "--json", code=code))


def test_a_querys_kernels_are_those_of_its_decision(configs: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = answered(capsys, "predict", *QUERY, "--tokens", "1,300", "--tables", configs)
    tables = KernelTables.load([configs])
    decision = Registry(Registry.default().book, tables).resolve(Query.parse({**FIELDS, "tokens": [1, 300]}))
    assert answer["kernels"] == [bucket.model_dump(mode="json") for bucket in decision.kernels]
    assert (answer["recipe"], answer["tables_digest"]) == (decision.recipe, tables.digest)
    assert [finding["code"] for finding in answer["findings"]] == ["untuned"]
    assert "at 1 tokens: a heuristic kernel runs" in answer["findings"][0]["message"]


def test_a_querys_table_names_row_layout_and_kernels(configs: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "predict", *QUERY, "--tokens", "300", "--tables", configs)
    for part in ("mxfp4.sep16", "300", "fp4x2", SEP, "sep16", "tuned_fmoe.csv:2", "findings  none"):
        assert part in text, part


def test_a_kernel_that_reads_other_bytes_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(write(tmp_path / "p", {"token": "512", "kernelName1": GUI}))
    text = said(capsys, "predict", *QUERY, "--tables", place, code=1)
    assert "at 257 to 512 tokens" in " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict"], "no query given"),
        (["predict", "--calls", "-", "--model", "x"], "--model cannot be combined with --calls"),
        (["predict", "query.json", "--calls", "-"], "cannot be combined with --calls"),
        (["predict", "--calls", "a\0b"], "cannot be read"),
        (["explain", *QUERY, "--tokens", "1,2"], "one token count"),
        (["explain", "--call", "{"], "--call: not valid JSON"),
        (["explain", "--call", "gfx=gfx950", "what"], "NAME=VALUE"),
        (["explain", "--call", "gfx=gfx950", "cu_num=x"], "--call cu_num"),
        (["explain", "--call", "/no/such.json"], "/no/such.json: cannot be read"),
        (["explain", "--tp", "2", "--call", "{}"], "--tp cannot be combined with --call"),
        (["check", "/no/such"], "/no/such: cannot be read"),
        (["check", "/no/such@main"], "is not a version"),
        (["diff", "@x", "@0.1.20"], "'x' is not a version"),
        (["diff", "@0.1.20"], "required: B"),
        (["diff", "/no/such@0.1.20", "@0.1.20"], "/no/such"),
        (["coverage", "openai/gpt-oss-120b", "--tp", "0"], "--tp '0'"),
        (["coverage", "openai/gpt-oss-120b", "--tp", "1,,2"], "--tp '1,,2'"),
        (["coverage", "openai/gpt-oss-120b", "--aiter", "x"], "'x' is not a version"),
        (["coverage", "openai/gpt-oss-120b", "--cu-num", "-5"], "cu_num"),
        (["coverrage"], "coverage"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("preshuffle: ")
    assert words in err


@pytest.mark.parametrize("action", ["predict", "explain"])
def test_what_nobody_answers_is_exit_one(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", action, "--model", "nobody/x", "--arch", "gfx950"]) == 1
    assert main(["kernels", "coverage", "nobody/x"]) == 1
    assert "no rule" in capsys.readouterr().err


def test_a_dispatch_is_explained_step_by_step(configs: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "explain", *QUERY, "--tokens", "300", "--tables", configs)
    flat = " ".join(text.split())
    for part in (
        "300 tokens count as 512", "GPTOSS_SWIGLU_MXFP4_BF16_BOUND=256", "token=512", "row tuned_fmoe.csv:2",
        "rule flydsl", "passed over mxmoe", "stage 1 _flydsl_stage1_wrapper", "w13_weight as sep16",
        "the first row of any activation answers", "ignores gate_mode",
    ):  # fmt: skip
        assert part in flat, part


def test_a_call_is_explained_however_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {**MX, "tokens": 16, "env": {"AITER_KSPLIT": "4"}}
    file = tmp_path / "call.json"
    file.write_text(json.dumps({"in": fields}))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(fields).encode())))
    pairs = [f"{name}={value}" for name, value in fields.items() if name != "env"]
    given = [[json.dumps(fields)], [str(file)], ["-"], [*pairs, "env.AITER_KSPLIT=4"]]
    answers = [answered(capsys, "explain", "--call", *call) for call in given]
    assert answers == [answers[0]] * 4
    choice = dispatch(DispatchCall.model_validate(fields))
    assert answers[0]["trace"]["choice"] == choice.model_dump(mode="json")


def test_a_call_for_which_aiter_raises_is_exit_one(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "explain", "--call", json.dumps({**MX, "dtype": "fp32"}), code=1)
    assert "AITER raises" in text
    assert "AssertionError" in text


def test_grouped_rows_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = write(tmp_path / "p", {"token": "512"})
    grouped = "token,model_dim,inter_dim,tile_m,kernelName1,kernelName2,us\n" + "1,1,2,64,a,b,1\n" * 3
    (place / "tuned_grouped_fmoe.csv").write_text(grouped)
    report = answered(capsys, "check", str(place))
    assert (report["rows"], report["grouped"]) == (1, 3)
    assert "the tables load  4 rows" in said(capsys, "check", str(place))


def test_unusual_rows_are_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = write(tmp_path / "p", {"token": "512", "kernelName1": "flydsl_moe9"})
    report = answered(capsys, "check", f"{place}@0.1.20")
    assert [(finding["code"], finding["actual"]) for finding in report["findings"]] == [
        ("stale_row", "tuned_fmoe.csv:2")
    ]
    assert report["files"] == [
        {"name": "tuned_fmoe.csv", "version": "0.1.20", "rows": 1, "grouped": 0, "unreachable": 0}
    ]
    assert "flydsl_moe9" in said(capsys, "check", str(place))
    used = answered(capsys, "explain", *QUERY, "--tokens", "300", "--tables", str(place))
    assert [finding["code"] for finding in used["findings"]] == ["stale_row"]


def test_two_files_that_contradict_each_other_are_one_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / name for name in ("a.csv", "b.csv")]
    for path, block in zip(paths, ("32", "64"), strict=True):
        path.write_bytes(table({"block_m": block}))
    report = answered(capsys, "check", *map(str, paths))
    assert [finding["code"] for finding in report["findings"]] == ["ambiguous_key"]


def test_a_gigabyte_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huge = tmp_path / "tuned_fmoe.csv"
    with huge.open("wb") as file:
        file.truncate(1 << 30)
    assert main(["kernels", "check", str(huge)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_coverage_draws_token_counts_against_tp(configs: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "coverage", "openai/gpt-oss-120b", "--arch", "gfx950", "--tables", configs, "--tp", "1,2")
    lines = [line.split() for line in text.splitlines()]
    assert ["tokens", "tp", "1", "tp", "2"] in lines
    (letter,) = [line[0] for line in lines if line[1:2] == ["fp4x2"]]
    assert ["257–512", "●", letter, "○", letter] in lines
    assert "a row of the tables" in text


def test_coverage_is_what_the_dispatch_says(configs: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = answered(capsys, "coverage", "openai/gpt-oss-120b", "--tables", configs)
    assert {grid["recipe"] for grid in report["grids"]} >= {"mxfp4.sep16", "mxfp4.gui16"}
    for grid in report["grids"]:
        los = [item["lo"] for item in grid["ranges"]]
        assert los[0] == 1
        assert [item["hi"] for item in grid["ranges"]] == [lo - 1 for lo in los[1:]] + [None]
    (grid,) = [grid for grid in report["grids"] if grid["recipe"] == "mxfp4.sep16" and grid["arch"] == "gfx950"]
    registry = Registry(Registry.default().book, KernelTables.load([configs]))
    for item in grid["ranges"]:
        for cell in item["cells"]:
            query = Query.parse({**FIELDS, "tp": cell["tp"], "tokens": [item["lo"]]})
            (bucket,) = registry.resolve(query).kernels
            meant = report["legend"][cell["kernels"]]
            assert meant["activation_dtype"] == bucket.activation_dtype
            assert bucket.stage1 is not None
            assert meant["family1"] == bucket.stage1.family
            assert cell["state"] == ("tuned" if bucket.tuned else "heuristic")


def test_coverage_without_tables_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "coverage", "openai/gpt-oss-120b", "--arch", "gfx950")
    assert "no tables" in text
    assert "●" not in text


def test_pictures_survive_a_terminal_without_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr("sys.stdout", out)
    assert main(["kernels", "coverage", "openai/gpt-oss-120b", "--arch", "gfx950"]) == 0
