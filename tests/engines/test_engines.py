"""Layers converted by the engines' own code, compared with the product."""

from __future__ import annotations

import pytest

from preshuffle.layouts.conform.engines.engine_cases import EngineCase, engine_cases
from preshuffle.layouts.conform.engines.engine_table import engine_table
from support.engines.runs import result_of
from support.engines.trees import ENGINES, missing

pytestmark = pytest.mark.engines
CASES = [case for engine in ENGINES for case in engine_cases(engine_table(engine))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.engine} {case.name}")
def test_a_layer_is_as_the_table_says(case: EngineCase) -> None:
    if reason := missing(case.engine):
        pytest.skip(reason)
    answer = result_of(case)
    assert answer.get("outcome") == case.expect, answer
    assert sorted(answer.get("differences") or ()) == sorted(case.differs), answer
