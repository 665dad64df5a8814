"""An engine's driver, on the trees of engine and AITER that lie here."""

from __future__ import annotations

from typing import Any

from preshuffle.layouts.conform.engines.engine_table import EngineTable
from preshuffle.layouts.conform.standins import engine_worker
from support.engines.trees import tree_of


def prepared_driver(table: EngineTable, arch: str) -> Any:
    """Make an engine importable in this process and return its driver."""
    aiter, tree = tree_of("aiter"), tree_of(table.name)
    assert aiter is not None
    assert tree is not None
    roots = {"root": str(aiter), "package": str(aiter / "aiter"), "engine_root": str(tree)}
    return engine_worker.prepare(table, roots, arch)
