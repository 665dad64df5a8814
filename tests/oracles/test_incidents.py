"""Real incidents and their controls: every one is found with its codes, and no control raises an alarm."""

import json
from pathlib import Path

import pytest

from preshuffle.registry import Registry
from preshuffle.registry.incidents import main, score

SHARED = Path(__file__).parents[3] / "shared"
INCIDENTS = SHARED / "incidents"
TABLES = SHARED / "oracle" / "configs"
NEEDS_TABLES = {"E05", "N01"}
OWN_TABLES = {"N21": "tables-N21.csv@0.1.14"}
needs_cases = pytest.mark.skipif(not INCIDENTS.is_dir(), reason="no incident cases beside this checkout")
CASE = {
    "id": "mine",
    "observation": {"query": {"model": "m", "arch": "gfx950"}, "applied": {"events": ["apply", "apply"]}},
    "expect": {"codes": ["double_shuffle"], "any_of": [["raw_write", "double_shuffle"]], "verdict": ["mismatch"]},
}


@needs_cases
def test_every_case_without_tables() -> None:
    tally = score(INCIDENTS, Registry.default())
    assert {
        case.id: case.problems
        for case in tally.scores
        if case.problems and case.id not in NEEDS_TABLES | OWN_TABLES.keys()
    } == {}
    assert len(tally.scores) >= 90


@needs_cases
@pytest.mark.skipif(not TABLES.is_dir(), reason="no kernel tables beside this checkout")
def test_every_case_with_tables() -> None:
    tally = score(INCIDENTS, Registry.load(kernel_tables=[TABLES]))
    assert {case.id: case.problems for case in tally.scores if case.problems and case.id not in OWN_TABLES} == {}


@needs_cases
@pytest.mark.parametrize("name", OWN_TABLES)
def test_a_case_with_tables_of_its_own(name: str) -> None:
    tally = score(INCIDENTS, Registry.load(kernel_tables=[str(INCIDENTS / OWN_TABLES[name])]))
    assert [case.problems for case in tally.scores if case.id == name] == [()]


def test_a_tally_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "right.json").write_text(json.dumps(CASE))
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 of 1 as expected\n"
    expect = {"codes": ["tag_lost"], "any_of": [["pad_fill"]], "not_codes": ["double_shuffle"], "verdict": ["ok"]}
    (tmp_path / "wrong.json").write_text(json.dumps(CASE | {"id": "wrong", "expect": expect}))
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    for text in ("tag_lost is missing", "none of pad_fill", "double_shuffle is a false alarm", "verdict mismatch, exp"):
        assert text in out
