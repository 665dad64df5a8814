"""The patches of the documentation's engine pages, in the engines' own classes: every argument of the call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.engines.trees import ENGINES, ROOT, missing

pytestmark = pytest.mark.engines
TESTS = Path(__file__).parents[1]
KNOWN = {"atom": ["swiglu_limit"]}
"""ATOM's layers without a limit of their own pass 0, which AITER takes for gpt-oss's 7."""


@pytest.mark.parametrize("engine", ENGINES)
def test_a_patched_engine_calls_as_it_did(engine: str) -> None:
    if reason := missing(engine):
        pytest.skip(reason)
    paths = os.pathsep.join([str(TESTS), str(ROOT / "dependencies"), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-m", "support.docs.patch_worker", engine],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    answers = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    assert len(answers) == 2
    assert [answer["differs"] for answer in answers] == [KNOWN.get(engine, [])] * 2
