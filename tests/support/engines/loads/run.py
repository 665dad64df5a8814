"""Run an engine's load of a small model in a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from support.engines.trees import RELEASES, ROOT

TESTS = Path(__file__).parents[3]


@cache
def load(
    engine: str,
    cases: tuple[str, ...],
    hook: str = "",
    faults: tuple[str, ...] = (),
    version: str | None = None,
    settings: tuple[tuple[str, str], ...] = (),
) -> dict[str, Any]:
    """Let an engine load plugins and layers, and call them; return what the child process saw.

    Args:
        engine: its name.
        cases: of the engine's table, one for each layer.
        hook: value of ``PRESHUFFLE_ENGINE_HOOK``; empty where it is not set.
        faults: what goes wrong in the child.
        version: what the engine's metadata says; the release of the table by default.
        settings: environment of the child.
    """
    with tempfile.TemporaryDirectory() as folder:
        _write_distribution(Path(folder), engine, version or RELEASES[engine])
        request = Path(folder, "request.json")
        asked = {"engine": engine, "cases": cases, "faults": faults, "distributions": folder}
        request.write_text(json.dumps(asked), encoding="utf-8")
        command = [sys.executable, "-m", "support.engines.loads.worker", str(request)]
        ended = subprocess.run(
            command, env=_environment(hook, settings), capture_output=True, text=True, timeout=600, check=False
        )
    assert ended.returncode == 0, ended.stderr[-4000:]
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


def _environment(hook: str, settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    own = {"PRESHUFFLE_ENGINE_HOOK", "PRESHUFFLE_SERVICE_URL", "PRESHUFFLE_SERVICE_DEPLOYMENT"}
    clean = {name: value for name, value in os.environ.items() if name not in own}
    paths = os.pathsep.join([str(TESTS), str(ROOT / "dependencies"), os.environ.get("PYTHONPATH", "")])
    return {**clean, **({"PRESHUFFLE_ENGINE_HOOK": hook} if hook else {}), **dict(settings), "PYTHONPATH": paths}


def _write_distribution(folder: Path, name: str, version: str) -> None:
    """Write the metadata that an installed engine has: its tree alone may have none."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
