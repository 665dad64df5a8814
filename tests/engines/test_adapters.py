"""`prepare` on the engines' own live layers, byte by byte beside what the engines make of the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from preshuffle.layouts.conform.engines.engine_cases import engine_cases
from preshuffle.layouts.conform.engines.engine_table import engine_table
from support.engines.trees import ROOT, missing

pytestmark = pytest.mark.engines
NAMES = "tp2$|ep2$"
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
    wrong = [answer for answer in answers if answer["outcome"] in ("other decision", "prepare refuses")]
    for answer in answers:
        known = {name.partition(".")[0] for name in cases[answer["name"]].differs}
        if not set(answer.get("differs", ())) <= known:
            wrong.append(answer)
    assert wrong == []
    assert [answer["outcome"] for answer in answers].count("prepared") >= 8
