"""`prepare` on the engines' own live layers, byte by byte beside what the engines make of the same weights."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from preshuffle.layouts.conform.engines.engine_cases import EngineCase, engine_cases
from preshuffle.layouts.conform.engines.engine_table import engine_table
from support.engines.trees import ROOT, missing

pytestmark = pytest.mark.engines
NAMES = "tp[1248]( |$)"
RUNS = [("vllm", "gfx950"), ("sglang", "gfx950"), ("atom", "gfx950")]
TESTS = Path(__file__).parents[1]


@cache
def answers_of(engine: str, arch: str) -> list[dict[str, Any]]:
    """Run the cases of one engine and architecture in a child process."""
    paths = os.pathsep.join([str(TESTS), str(ROOT / "dependencies"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "support.engines.adapter_worker", engine, arch, NAMES]
    environment = {**os.environ, "PYTHONPATH": paths}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=True)
    return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize(("engine", "arch"), RUNS)
def test_a_live_layer_asks_and_becomes_what_its_engine_means(engine: str, arch: str) -> None:
    if reason := missing(engine):
        pytest.skip(reason)
    cases = {case.name: case for case in engine_cases(engine_table(engine))}
    answers = answers_of(engine, arch)
    wrong = [answer for answer in answers if not as_known(answer, case_of(answer["name"], cases))]
    assert wrong == []
    prepared = [answer["name"] for answer in answers if answer["outcome"] == "prepared"]
    assert len(prepared) >= 45
    assert sum(f" ep{ep} " in name for name in prepared for ep in (2, 4, 8)) >= 20


def case_of(name: str, cases: dict[str, EngineCase]) -> EngineCase:
    """Return the table's case of a layer; of an expert-parallel one that of the same layer."""
    if name in cases:
        return cases[name]
    whole = re.sub(r"tp\d", "tp1", name.partition(" ep")[0])
    return cases.get(f"{whole} ep2", cases[whole])


def as_known(answer: dict[str, Any], case: EngineCase) -> bool:
    """Return whether a layer became what its engine means, but for faults that the table names.

    Where values are quantized again engines round through fp16, which shows with some experts and not with others.
    """
    known = {name.partition(".")[0] for name in case.differs} | set(answer.get("rounded", ()))
    if answer["outcome"] == "prepare refuses":  # where the engine's own shard is none of the model's
        return "w1" in known
    return answer["outcome"] != "other decision" and set(answer.get("differs", ())) <= known
