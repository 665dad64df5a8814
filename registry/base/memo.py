"""Bounded memoisation: results by table and key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Value = TypeVar("Value")


class Memo:
    """A bounded cache of computed results, one table per kind of result.

    Whoever constructs one owns it, and its results live no longer than that owner. A full table is emptied: that costs
    nothing per look-up, and a working set below the bound stays.

    Example:
        >>> memo = Memo()
        >>> memo.get("squares", 3, lambda: 9), memo.get("squares", 3, lambda: 0)
        (9, 9)
    """

    def __init__(self, size: int = 2048) -> None:
        """Start empty; ``size`` is the largest number of results per table."""
        self._size = size
        self._tables: defaultdict[str, dict[Hashable, list[Any]]] = defaultdict(dict)

    def get(self, table: str, key: Hashable, compute: Callable[[], Value]) -> Value:
        """Return the stored result for a key, or compute and store it.

        Errors are raised and not stored.
        """
        stored = self._tables[table]
        cell = stored.setdefault(key, [])  # one look-up for both: hashing a query takes longer than all else here
        if not cell:
            cell.append(compute())
            if len(stored) > self._size:
                stored.clear()
                stored[key] = cell
        return cell[0]  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[type[Memo], tuple[int]]:
        """Copy and pickle as an empty cache of the same size."""
        return Memo, (self._size,)
