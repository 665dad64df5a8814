"""The page on the service names every setting once, with its default."""

from __future__ import annotations

import re
from pathlib import Path

from preshuffle.api.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "service.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<names>`--[^|]+) \| (?P<defaults>[^|]+) \|", re.MULTILINE)


def documented() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for row in ROW.finditer(PAGE):
        names, defaults = row["names"].split(", "), row["defaults"].strip().split(", ")
        defaults *= len(names) if len(defaults) == 1 else 1
        found += zip((name.strip("` -").replace("-", "_") for name in names), defaults, strict=True)
    return found


def shown(default: object) -> str:
    return "none" if default in (None, ()) else f"{default:g}" if isinstance(default, float) else str(default)


def test_every_setting_is_named_once_with_its_default() -> None:
    expected = {name: shown(field.default) for name, field in Settings.model_fields.items()}
    rows = documented()
    assert dict(rows) == expected
    assert len(rows) == len(expected)
