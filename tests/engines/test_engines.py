"""Layers converted by the engines' own code, each compared with the product: bytes, shapes, tags and call."""

from __future__ import annotations

import pytest

from support.engines.cases import Case, read_cases
from support.engines.figures import ENGINES
from support.engines.runs import result_of
from support.engines.trees import missing

pytestmark = pytest.mark.engines
CASES = [case for engine in ENGINES for case in read_cases(engine)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.engine} {case.name}")
def test_a_layer_is_as_the_table_says(case: Case) -> None:
    if reason := missing(case.engine):
        pytest.skip(reason)
    result = result_of(case)
    details = "\n".join(result["details"])
    assert result["outcome"] == case.expect, f"{result['recipe']}\n{details}"
    if case.expect == "differs":
        assert sorted(line.partition(":")[0] for line in result["differences"]) == sorted(case.differs), details
