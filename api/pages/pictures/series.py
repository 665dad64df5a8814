"""Arithmetic series of numbered values, as words and scripts read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """Values of consecutive numbers with one prefix, ``value + index * step``."""

    prefix: str
    first: int
    value: int
    step: int = 0
    count: int = 1

    @property
    def last(self) -> int:
        """The last number."""
        return self.first + self.count - 1

    @property
    def text(self) -> str:
        """The series as ``picture.js`` reads it.

        ``g0:20+9*16`` is 16 values, of g0 to g15, from 20 on, 9 apart.
        """
        return f"{self.prefix}{self.first}:{self.value}+{self.step}*{self.count}"

    def extended(self, prefix: str, number: int, value: int) -> Series | None:
        """Return the series with one more value; None where it breaks off."""
        step = self.step if self.count > 1 else value - self.value
        if (prefix, number, value) != (self.prefix, self.last + 1, self.value + self.count * step):
            return None
        return Series(self.prefix, self.first, self.value, step, self.count + 1)


def series_of(items: Iterable[tuple[str, int, int]]) -> list[Series]:
    """Join neighbours ``(prefix, number, value)`` into series."""
    found: list[Series] = []
    for item in items:
        longer = found[-1].extended(*item) if found else None
        if longer:
            found[-1] = longer
        else:
            found.append(Series(*item))
    return found


def series_text(items: Iterable[tuple[str, int, int]]) -> str:
    """Write ``(prefix, number, value)`` as series, with spaces between them."""
    return " ".join(series.text for series in series_of(items))
