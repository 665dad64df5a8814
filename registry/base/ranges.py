"""Ranges of whole numbers: merge them, write them as ``1-16, 64``."""

from __future__ import annotations

from collections.abc import Iterable

Range = tuple[int, int | None]
"""First and last number, both included; a last of None means that there is no end."""


def merge_ranges(ranges: Iterable[Range]) -> list[Range]:
    """Sort ranges; merge those that overlap or touch.

    Example:
        >>> merge_ranges([(4, 9), (1, 3), (20, None)])
        [(1, 9), (20, None)]
    """
    merged: list[Range] = []
    for first, last in sorted(ranges, key=lambda item: item[0]):
        before = merged[-1] if merged else None
        if before is None or (before[1] is not None and first > before[1] + 1):
            merged.append((first, last))
        elif before[1] is not None:
            merged[-1] = (before[0], None if last is None else max(before[1], last))
    return merged


def range_text(first: int, last: int | None, dash: str = "-") -> str:
    """Write one range as text.

    A range of one number is that number; one without end stops at the dash.

    Example:
        >>> range_text(5, 5), range_text(1, 16), range_text(64, None, "–")
        ('5', '1-16', '64–')
    """
    return str(first) if first == last else f"{first}{dash}{'' if last is None else last}"


def ranges_text(numbers: Iterable[int], dash: str = "-") -> str:
    """Write numbers, consecutive ones as a range.

    Example:
        >>> ranges_text([0, 3, 4, 5])
        '0, 3-5'
    """
    return ", ".join(range_text(first, last, dash) for first, last in merge_ranges((n, n) for n in numbers))
