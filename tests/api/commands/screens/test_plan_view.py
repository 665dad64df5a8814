"""A plan on a terminal with colour."""

from __future__ import annotations

from preshuffle.api.commands.screens.plan_view import show_plan
from preshuffle.api.commands.screens.screen import Screen
from preshuffle.api.rollout import Plan, PlanItem
from preshuffle.api.rollout.plan_values import Side, Where


def test_colours_are_written_as_colours() -> None:
    before, after = (Side(recipe="r", reason="because", verdict=verdict) for verdict in ("ok", "mismatch"))
    item = PlanItem(
        **{"where": (Where(deployment="d", replicas=(0,), layers="0"),), "model": "m", "arch": "gfx950"},
        **{"before": before, "after": after, "decision_changes": True, "bytes_change": True, "becomes": "worse"},
        **{"restart": True, "changes": (), "kernels": (), "new_findings": ()},
    )
    digests = {"registry_before": "a", "registry_after": "a", "tables_before": None, "tables_after": None}
    counts = {"deployments": 1, "unchanged": 0, "worse": 1, "better": 0, "same": 0}
    screen = Screen(80, colour=True)
    show_plan(screen, Plan(**digests, **counts, aiter=None, items=(item,), book=()))
    text = "\n".join(screen.lines)
    assert "\x1b[1;31mok → mismatch\x1b[0m" in text
    assert "\\x1b" not in text
