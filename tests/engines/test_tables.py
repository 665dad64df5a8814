"""The tables of layers that engines convert, without the engines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.engines.cases import Case, read_cases
from support.engines.checkpoint import FORMATS
from support.engines.figures import ENGINES, OUTCOMES, OWNERS, page

ROOT = Path(__file__).parents[2]
CASES = [case for engine in ENGINES for case in read_cases(engine)]


def test_every_difference_names_whose_fault_it_is() -> None:
    assert [case.name for case in CASES if (case.expect == "differs") != bool(case.differs)] == []
    assert [case.name for case in CASES if (case.expect != "equal") != bool(case.fault)] == []
    assert {case.fault.partition(":")[0] for case in CASES if case.fault} <= set(OWNERS)


def test_cases_use_known_words() -> None:
    assert {case.expect for case in CASES} <= set(OUTCOMES)
    assert {case.form for case in CASES} <= set(FORMATS)


@pytest.mark.parametrize("engine", ENGINES)
def test_names_of_cases_are_unique(engine: str) -> None:
    names = [case.name for case in CASES if case.engine == engine]
    assert len(names) == len(set(names))


def test_a_case_takes_what_the_first_pattern_says() -> None:
    def named(name: str) -> Case:
        return next(case for case in CASES if case.engine == "sglang" and re.fullmatch(name, case.name))

    assert named("gpt-oss-120b gfx950 tp8").differs == ("intermediate_pad",)
    assert named("gpt-oss-120b gfx950 tp2").expect == "equal"


def test_the_page_holds_the_figures_of_the_tables() -> None:
    written = (ROOT / "docs" / "engines-compared.md").read_text(encoding="utf-8")
    assert written == page()
