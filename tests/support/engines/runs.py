"""Run cases in child processes, one for each engine, architecture and environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from support.engines.cases import Case, read_cases
from support.engines.trees import ROOT

TESTS = Path(__file__).parents[2]
TIMEOUT_S = 900
Key = tuple[str, str, str]


def key_of(case: Case) -> Key:
    """Return what cases of one child process have in common."""
    return case.engine, case.arch, json.dumps(case.env, sort_keys=True)


@cache
def results_of(key: Key) -> dict[str, dict[str, Any]]:
    """Return the results of all cases of one process, by name.

    Raises:
        RuntimeError: the process failed as a whole, so the engine could not be imported.
    """
    cases = [case for case in read_cases(key[0]) if key_of(case) == key]
    with TemporaryDirectory() as folder:
        given, made = Path(folder, "cases.json"), Path(folder, "results.json")
        given.write_text(json.dumps([asdict(case) for case in cases]))
        paths = [str(TESTS), str(ROOT / "dependencies"), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, **cases[0].env, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, "-m", "support.engines.worker", str(given), str(made)]
        ended = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if ended.returncode:
            raise RuntimeError(f"{key[0]} on {key[1]}: {ended.stderr[-3000:]}")
        return {row["name"]: row for row in json.loads(made.read_text())}


def result_of(case: Case) -> dict[str, Any]:
    """Return what came of one case."""
    return results_of(key_of(case))[case.name]
