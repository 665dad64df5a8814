"""Where the engines' code lies, outside this repository.

`make engines` puts releases into `.engines/`; an environment variable names another folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from preshuffle.layouts.conform.engines.engine_table import engine_table

ENGINES = ("vllm", "sglang", "atom")
RELEASES = {**{name: engine_table(name).release for name in ENGINES}, "aiter": "0.1.20"}
"""The versions that the tables of expected results are about."""

ROOT = Path(__file__).parents[3] / ".engines"
ENTRY_FILES = {
    **{name: f"{engine_table(name).package}/{engine_table(name).entry}" for name in ENGINES},
    "aiter": "aiter/ops/shuffle.py",
}
"""A file of each without which the folder is not what it should be."""


def variable_of(name: str) -> str:
    """Return the environment variable that names a tree."""
    return f"PRESHUFFLE_{name.upper()}_TREE"


def tree_of(name: str) -> Path | None:
    """Return the folder that holds an engine's package, if any."""
    folder = Path(os.environ.get(variable_of(name)) or ROOT / name)
    return folder if (folder / ENTRY_FILES[name]).is_file() else None


def missing(engine: str) -> str | None:
    """Return why an engine cannot be run here; None if it can."""
    absent = [name for name in (engine, "aiter") if tree_of(name) is None]
    if not absent:
        return None
    hints = " and ".join(variable_of(name) for name in absent)
    return f"no code of {' and '.join(absent)} here: make engines fetches it, or set {hints}"
