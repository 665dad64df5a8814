"""``preshuffle registry``: check, show, diff and schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema_rs import validator_for

from preshuffle.api.cli import main
from preshuffle.registry import Registry

ROOT = Path(__file__).parents[3]
RULE = """\
rules:
  ours:
    when: {model: openai/gpt-oss-120b, arch: gfx950, deployment: "blue-*"}
    use: mxfp4.gui16
    because: blue goes first
    evidence: [https://example.org/ticket]
"""


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESHUFFLE_BOOK", "PRESHUFFLE_TABLES", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert main(["registry", *arguments, "--json"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    value: dict[str, Any] = json.loads(out)
    return value


def overlay(folder: Path, text: str, name: str = "ours.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder)


def test_check_counts_what_it_loads(capsys: pytest.CaptureFixture[str]) -> None:
    plain = answer(capsys, "check")
    assert plain["ok"]
    assert plain["registry_digest"] == Registry.default().digest
    assert (plain["packaged"], plain["overlaid"]) == (None, [])
    assert main(["registry", "check"]) == 0
    assert "the book loads" in capsys.readouterr().out


def test_check_with_an_overlay_reports_the_overlay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the packaged book says by itself is one line."""
    book = Registry.default().book
    folder = overlay(tmp_path, RULE)
    report = answer(capsys, "check", "--book", folder)
    assert (report["ok"], report["counts"], report["sources"]) == (True, {"rules": 1}, [f"{folder}/ours.yaml"])
    assert report["registry_digest"] == Registry.load([folder]).digest
    assert (report["by_reading"], set(report["kernel_evidence"].values())) == ([], {0})
    assert report["packaged"]["entries"] == sum(map(len, book.entries.values()))
    assert {item["effect"] for item in report["overlaid"]} == {"outranked"}
    assert main(["registry", "check", "--book", folder]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) < 20
    assert "By reading alone" not in out
    assert f"ours{folder}/ours.yaml:2" in "".join(out.split())


def test_check_lists_what_an_overlay_itself_says_by_reading_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = """\
kernel_families:
  ours_stage1:
    stage: "1"
    funcs: [ours_stage1]
    archs: [gfx950]
    grammar: '^ours_t(?P<tile>\\d+)$'
    variants:
      - reads: {w13_weight: sep16}
"""
    report = answer(capsys, "check", "--book", overlay(tmp_path, family))
    (statement,) = report["by_reading"]
    assert (statement["family"], statement["layout"], statement["known"]) == ("ours_stage1", "sep16", None)
    assert report["kernel_evidence"]["not said"] == 1


def test_check_names_every_problem_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = RULE.replace("mxfp4.gui16", "mxfp4.gui61").replace("arch: gfx950", "arch: gfx951")
    folder = overlay(tmp_path, text)
    report = answer(capsys, "check", "--book", folder, code=2)
    places = {(problem["line"], problem["column"]) for problem in report["problems"]}
    assert not report["ok"]
    assert len(report["problems"]) == 2
    assert (4, 5) in places
    assert main(["registry", "check", "--book", folder]) == 2
    out = capsys.readouterr().out
    assert f"{folder}/ours.yaml:4:5: unknown recipe 'mxfp4.gui61'; did you mean mxfp4.gui16" in out
    assert "2 problems" in out


def test_a_book_with_a_rule_that_never_answers_loads_with_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = "    use: null\n    because: a test\n"
    both = "".join(f"  gated-{word}:\n    when: {{gated: {word}, deployment: d}}\n{one}" for word in ("true", "false"))
    folder = overlay(tmp_path, f"rules:\n{both}  never:\n    when: {{deployment: d}}\n{one}")
    report = answer(capsys, "check", "--book", folder, code=1)
    assert (report["ok"], report["loads"], len(report["problems"])) == (False, True, 1)
    assert main(["registry", "check", "--book", folder]) == 1
    out = capsys.readouterr().out
    assert "the book loads, with 1 problem" in out
    assert "does not load" not in out
    assert "'gated-false' or 'gated-true' answer in its place" in out


def test_check_reports_what_is_odd_about_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = answer(capsys, "check", "--tables", "auto")
    assert report["tables"]["rows"] > 0
    assert {finding["severity"] for finding in report["findings"]} == {"warning"}
    assert main(["registry", "check", "--tables", "auto"]) == 0
    assert "ambiguous_key" in capsys.readouterr().out
    path = tmp_path / "tuned_fmoe.csv"
    path.write_text("a,b\n1,2\n")
    wrong = answer(capsys, "check", "--tables", str(path), code=2)
    assert str(path) in wrong["table_error"]
    assert main(["registry", "check", "--tables", str(path)]) == 2
    assert "the kernel tables do not load" in capsys.readouterr().out


def test_show_sections_entries_and_one_entry(capsys: pytest.CaptureFixture[str]) -> None:
    book = Registry.default().book
    sections = answer(capsys, "show")
    assert sections["counts"] == {name: len(entries) for name, entries in book.entries.items()}
    for section, entries in book.entries.items():
        listed = answer(capsys, "show", section)["entries"]
        assert [entry["id"] for entry in listed] == list(entries)
        assert main(["registry", "show", section]) == 0
        capsys.readouterr()
    (recipe,) = answer(capsys, "show", "recipes", "mxfp4.sep16")["entries"]
    assert recipe["fields"]["call"] == {"gate_mode": "separated", "quant_type": "per_1x32"}
    assert recipe["place"].startswith("book/recipes_mxfp4.yaml:")
    assert main(["registry", "show", "recipes", "mxfp4.sep16"]) == 0
    assert "    gate_mode: separated" in capsys.readouterr().out
    assert main(["registry", "show"]) == 0
    assert "recipes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "recipe"], ["unknown section 'recipe'", "did you mean recipes?", "valid: layouts"]),
        (["show", "recipes", "mxfp4.sep61"], ["no 'mxfp4.sep61' in recipes", "did you mean mxfp4.sep16?"]),
        (["diff"], ["DIR"]),
        (["diff", "/no/such"], ["/no/such: no such file or folder"]),
        (["show", "--book", "/no/such"], ["/no/such: "]),
    ],
)
def test_bad_input_is_named(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("preshuffle: ")
    assert [word for word in words if word not in err] == []


def test_diff_shows_what_is_added_and_what_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = """\
flags:
  ATOM_MOE_GU_ITLV:
    owner: atom
    default: "1"
    values: {"0": apart, "1": alternating}
    meaning: which layout MXFP4 experts get
    affects: [layout]
    evidence: [https://example.org/ticket]
"""
    overlay(tmp_path, flags, "flags.yaml")
    folder = overlay(tmp_path, RULE)
    report = answer(capsys, "diff", folder)
    changes = {(change["section"], change["id"]): change for change in report["changes"]}
    assert set(changes) == {("rules", "ours"), ("flags", "ATOM_MOE_GU_ITLV")}
    assert changes["rules", "ours"]["change"] == "added"
    replaced = changes["flags", "ATOM_MOE_GU_ITLV"]
    assert replaced["change"] == "replaced"
    fields = {field["field"]: (field["before"], field["after"]) for field in replaced["fields"]}
    assert fields["default"] == ("0", "1")
    assert "owner" not in fields
    assert report["before"] == Registry.default().digest
    assert main(["registry", "diff", folder]) == 0
    out = capsys.readouterr().out
    assert "added  rules ours" in out
    assert "- default" in out


def test_diff_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = (ROOT / "registry" / "book" / "flags.yaml").read_text()
    folder = overlay(tmp_path, same)
    assert answer(capsys, "diff", folder)["changes"] == []
    assert main(["registry", "diff", folder]) == 0
    assert "changes nothing" in capsys.readouterr().out


def test_the_schema_accepts_the_book_and_refuses_what_the_book_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    validator = validator_for(answer(capsys, "schema"))
    elsewhere = {"kernel_families.yaml", "aiter_dispatch.yaml"}
    for path in (ROOT / "registry" / "book").glob("*.yaml"):
        if path.name not in elsewhere:
            assert [error.message for error in validator.iter_errors(yaml.safe_load(path.read_text()))] == []
    good = yaml.safe_load(RULE)
    assert validator.is_valid(good)
    mistakes: tuple[dict[str, object], ...] = (
        {"rule": {}},
        {"rules": {"ours": {**good["rules"]["ours"], "id": "ours"}}},
        {"rules": {"ours": {**good["rules"]["ours"], "when": {"modell": "x"}}}},
        {"rules": {"ours": {**good["rules"]["ours"], "evidence": 3}}},
    )
    for wrong in mistakes:
        assert not validator.is_valid(wrong)
