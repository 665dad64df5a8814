"""Run cases in child processes, one for each engine, architecture and environment."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from preshuffle.layouts.conform import open_aiter
from preshuffle.layouts.conform.engines.check_engine import run_layers
from preshuffle.layouts.conform.engines.engine_cases import EngineCase, engine_cases
from preshuffle.layouts.conform.engines.engine_source import open_engine
from preshuffle.layouts.conform.engines.engine_table import engine_table
from support.engines.trees import RELEASES, ROOT, tree_of

Key = tuple[str, str, str]


def key_of(case: EngineCase) -> Key:
    """Return what cases of one child process have in common."""
    return case.engine, case.arch, json.dumps(case.env, sort_keys=True)


@cache
def results_of(key: Key) -> dict[str, dict[str, Any]]:
    """Return the answers for all cases of one process, by name."""
    table = engine_table(key[0])
    cases = [case for case in engine_cases(table) if key_of(case) == key]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "dependencies"))
        with open_engine(table, str(tree_of(key[0]))) as engine, open_aiter(str(tree_of("aiter"))) as source:
            answers = run_layers(engine, table.release, source, RELEASES["aiter"], cases)
    return {case.name: answer for case, answer in zip(cases, answers, strict=True)}


def result_of(case: EngineCase) -> dict[str, Any]:
    """Return what came of one case."""
    return results_of(key_of(case))[case.name]
