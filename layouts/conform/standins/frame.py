"""Data frame with as much of pandas as AITER's table lookup uses.

Kernel choices are compared on machines without pandas, too, and equal ones give equal answers everywhere. A row keeps
its ``file:line`` in the column ``SOURCE``, and a table that was made a dictionary records which row was found.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

SOURCE = "_source"
_MISSING = frozenset(
    {"", "#N/A", "#NA", "-NaN", "-nan", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)

found: list[str | None] = []
"""Sources of the rows that lookups found, in order; None for a miss."""


class RecordingDict(dict[Any, dict[str, Any]]):
    """Rows by key that record what ``get`` finds."""

    def get(self, key: Any, default: Any = None) -> Any:
        """Look a key up and record the row's source."""
        row = super().get(key)
        found.append(None if row is None else row.get(SOURCE))
        return default if row is None else row


class Column:
    """One column of values, with pandas' element-wise operators."""

    def __init__(self, values: Sequence[Any]) -> None:
        """Take the values."""
        self.values = list(values)

    def _each(self, function: Callable[[Any], Any]) -> Column:
        return Column([function(value) for value in self.values])

    def isna(self) -> Column:
        """Return which values are missing."""
        return self._each(lambda value: isinstance(value, float) and math.isnan(value))

    def fillna(self, default: Any) -> Column:
        """Return the values, missing ones replaced."""
        return self._each(lambda value: default if isinstance(value, float) and math.isnan(value) else value)

    def astype(self, kind: type) -> Column:
        """Return the values converted."""
        return self._each(kind)

    def isin(self, values: Sequence[Any]) -> Column:
        """Return which values are among those given."""
        return self._each(lambda value: value in values)

    def map(self, function: Callable[[Any], Any]) -> Column:
        """Return a function's results."""
        return self._each(function)

    def any(self) -> bool:
        """Return whether any value is true."""
        return any(self.values)

    def sum(self) -> int:
        """Return the sum."""
        return sum(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)

    def __eq__(self, other: object) -> Column:  # type: ignore[override]
        return self._each(lambda value: value == other)

    def __ne__(self, other: object) -> Column:  # type: ignore[override]
        return self._each(lambda value: value != other)

    def __or__(self, other: Column) -> Column:
        return Column([one or two for one, two in zip(self, other, strict=True)])

    def __and__(self, other: Column) -> Column:
        return Column([one and two for one, two in zip(self, other, strict=True)])

    def __invert__(self) -> Column:
        return self._each(lambda value: not value)

    __hash__ = None  # type: ignore[assignment]


class TableFrame:
    """Table of columns, in order."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        """Take the columns, all of one length."""
        self.data = columns
        self.keys: list[str] = []

    @property
    def columns(self) -> list[str]:
        """Return the columns' names."""
        return list(self.data)

    @property
    def empty(self) -> bool:
        """Return whether there is no row."""
        return len(self) == 0

    @property
    def loc(self) -> _Rows:
        """Return the rows, for selection and assignment by a mask."""
        return _Rows(self)

    def __len__(self) -> int:
        return len(next(iter(self.data.values()), []))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return Column(self.data[key])
        if isinstance(key, Column):
            return self.loc[key]
        return TableFrame({name: list(self.data[name]) for name in key})

    def __setitem__(self, name: str, value: Any) -> None:
        self.data[name] = list(value.values) if isinstance(value, Column) else [value] * len(self)

    def copy(self) -> TableFrame:
        """Return a copy."""
        return TableFrame({name: list(values) for name, values in self.data.items()})

    def duplicated(self, subset: Sequence[str], keep: str = "first") -> Column:
        """Return which rows repeat an earlier one."""
        seen, repeats = set(), []
        for row in zip(*(self.data[name] for name in subset), strict=True):
            repeats.append(row in seen)
            seen.add(row)
        return Column(repeats)

    def set_index(self, keys: Sequence[str]) -> TableFrame:
        """Return the table with key columns."""
        made = self.copy()
        made.keys = list(keys)
        return made

    def to_dict(self, orient: str) -> RecordingDict:
        """Return rows by their key."""
        rest = [name for name in self.data if name not in self.keys]
        keys = zip(*(self.data[name] for name in self.keys), strict=True)
        rows = zip(*(self.data[name] for name in rest), strict=True)
        return RecordingDict((key, dict(zip(rest, row, strict=True))) for key, row in zip(keys, rows, strict=True))


class _Rows:
    """Selection of rows by a mask."""

    def __init__(self, frame: TableFrame) -> None:
        self.frame = frame

    def __getitem__(self, key: Any) -> Any:
        mask, name = key if isinstance(key, tuple) else (key, None)
        chosen = {
            column: [value for value, wanted in zip(values, mask, strict=True) if wanted]
            for column, values in self.frame.data.items()
        }
        return TableFrame(chosen) if name is None else Column(chosen[name])

    def __setitem__(self, key: tuple[Column, str], value: Any) -> None:
        mask, name = key
        new = iter(value.values) if isinstance(value, Column) else None
        column = self.frame.data[name]
        for at, wanted in enumerate(mask):
            if wanted:
                column[at] = next(new) if new is not None else value


def read_csv(path: str) -> TableFrame:
    """Read a CSV as pandas does, dtypes by column."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    header = [name.strip() for name in rows[0]]
    body = [row + [""] * (len(header) - len(row)) for row in rows[1:] if any(row)]
    return TableFrame({name: _column([row[at] for row in body]) for at, name in enumerate(header)})


def _column(texts: Sequence[str]) -> list[Any]:
    for kind in (int, float):
        try:
            values = [math.nan if text in _MISSING else kind(text) for text in texts]
        except ValueError:
            continue
        missing = any(text in _MISSING for text in texts)
        return [float(value) for value in values] if missing else values
    if all(text in ("True", "False") for text in texts):
        return [text == "True" for text in texts]
    return [math.nan if text in _MISSING else text for text in texts]
