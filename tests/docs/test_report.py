"""The Python of docs/report.md runs as it is pasted, and its table names every setting."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from preshuffle.api.variables import REPORTING

PAGE = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_its_python_runs_without_a_service(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRESHUFFLE_SERVER", raising=False)
    monkeypatch.delenv("PRESHUFFLE_SERVICE_URL", raising=False)
    exec(compile(BLOCKS[number], "docs/report.md", "exec"), {"__name__": "engine"})


def test_every_setting_is_in_its_table() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `PRESHUFFLE_SERVICE_")]
    assert re.findall(r"`PRESHUFFLE_SERVICE_(\w+)`", " ".join(rows)) == list(REPORTING)
