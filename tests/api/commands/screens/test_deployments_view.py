"""The list of deployments on narrow and wide terminals."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from preshuffle.api.commands.screens.deployments_view import show_list
from preshuffle.api.commands.screens.screen import Screen

LONG = "z" * 128


def deployment(name: str, **more: Any) -> dict[str, Any]:
    facts = {"models": ["openai/gpt-oss-120b"], "archs": ["gfx950"], "engines": ["vllm@0.33.0"], "parallel": ["TP 2"]}
    state = {"state": "mismatch", "cause": "bytes are gui16, read as sep16", "codes": ["layout_mismatch"]}
    marks = {"silence": None, "acknowledgement": None, "state_since": datetime.now(UTC).isoformat()}
    return {"name": name, "nodes": ["node-1"], "incomplete": [], **facts, **state, **marks, **more}


def shown(width: int, *names: str) -> list[str]:
    screen = Screen(width, colour=False)
    show_list(screen, [deployment(name) for name in names])
    return "\n".join(screen.lines).split("\n")


@pytest.mark.parametrize("width", [40, 80, 99, 100, 132, 200])
def test_a_long_name_squeezes_nothing_and_is_not_lost(width: int) -> None:
    lines = shown(width, "prod", LONG)
    assert max(map(len, lines)) <= width
    assert "".join(lines).count("z") == len(LONG)
    apart = shown(width, "prod")
    if width >= 80:
        assert len(lines) <= 2 * len(apart) + 3  # the other columns keep their room
    assert any("prod" in line.split() or "prod," in line.split() for line in lines)


def test_a_name_of_usual_length_stays_in_one_word() -> None:
    name = "gpt-oss-120b-prod-eu-west-1a"
    for width in (80, 100, 200):
        assert any(name in line for line in shown(width, name, LONG))


def test_what_is_not_seen_is_escaped_and_moves_no_column() -> None:
    screen = Screen(120, colour=True)
    show_list(screen, [deployment("prod", nodes=["n\u202e\x1b[31m"], cause="why\u2066")])
    text = "\n".join(screen.lines)
    assert "\\u202e\\x1b[31m" in text
    assert "why\\u2066" in text
