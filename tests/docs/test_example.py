"""The example: a small MoE layer on two ranks, each step of its life beside the plain model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

EXAMPLE = Path(__file__).parents[2] / "examples" / "minimal_moe.py"


def example() -> ModuleType:
    """Import the example, which is no package."""
    spec = importlib.util.spec_from_file_location("minimal_moe", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_ranks_agree_with_the_plain_model(tmp_path: Path) -> None:
    module = example()
    for seen in module.run(tmp_path):
        for step in ("prepared", "updated", "migrated"):
            assert seen[step] < module.AGREES, step
        assert (seen["verdict"], seen["call"], seen["addresses stay"]) == ("ok", "ok", True)
        assert (seen["observed"]["w13_weight"], seen["observed"]["w13_weight_scale"]) == ("sep16", "e8")
