"""Formats of the pages: links, times, shapes, numbers and values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from preshuffle.registry.base.ranges import ranges_text
from preshuffle.registry.values.decision import ReasonKind

REASON_KINDS: Final[dict[ReasonKind, str]] = {
    "exact": "the rule names the model",
    "engine": "the rule tests the engine",
    "general": "the rule holds for any model",
    "switch": "the rule tests a switch",
    "overlay": "the rule comes from an overlay",
}
"""What each kind of reason means."""
_UNITS: Final = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def url(path: str, **params: Any) -> str:
    """Write a link, without its empty parameters.

    Example:
        >>> url("/", state="ok", name="", cursor=None)
        '/?state=ok'
    """
    query = urlencode({name: value for name, value in params.items() if value not in (None, "", ())}, doseq=True)
    return f"{path}?{query}" if query else path


def ago(moment: datetime, now: datetime | None = None) -> str:
    """Write how long ago something happened.

    Example:
        >>> ago(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 2, 5, tzinfo=UTC))
        '2 hours ago'
    """
    seconds = int(((now or datetime.now(UTC)) - moment).total_seconds())
    for size, unit in _UNITS:
        count = seconds // size
        if count >= 1:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def shape(sizes: Sequence[int] | None) -> str:
    """Write a tensor's shape."""
    return " × ".join(map(str, sizes)) if sizes else "—"


def number(value: int) -> str:
    """Write a number with thin spaces between its thousands."""
    return f"{value:,}".replace(",", "\u202f")


def numbers(values: Sequence[int]) -> str:
    """Write a rising list of numbers, consecutive ones as a range.

    Example:
        >>> numbers([0, 1, 2, 5])
        '0–2, 5'
    """
    return ranges_text(values, "–")


def words(value: object, absent: str) -> str:
    """Write a value as tables show it; ``absent`` for None."""
    if value is None:
        return absent
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
