"""Budget of bytes that all connections of a server share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Generic, TypeVar

Holder = TypeVar("Holder")

_PER_VALUE: Final = 64
"""Bytes of a small JSON value once it is a Python object."""
_PER_CELL: Final = 8
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|(\\?\Z))', re.DOTALL)
"""A string of JSON; the group matches where it has no end yet. Never tried twice at one place, so linear."""


class BodySize:
    """Estimate of a streamed body's memory once it is parsed.

    Outside of strings, every comma and bracket of JSON begins a value: a body of nothing else grows twentyfold.
    """

    def __init__(self, is_json: bool) -> None:
        """Start before the first byte."""
        self._is_json = is_json
        self._open = b""  # the quote of a string that goes on in the next piece, and a backslash at its end

    def of(self, piece: bytes) -> int:
        """Return the size of the next piece."""
        if not self._is_json:
            return len(piece) + _PER_CELL * piece.count(b",")
        parts = _STRING.split(self._open + piece)
        outside = b"".join(parts[::2])
        begun = parts[-2] if len(parts) > 1 else None
        self._open = b"" if begun is None else b'"' + begun
        return len(piece) + _PER_VALUE * (len(outside) - len(outside.translate(None, b",[{")))


class ByteBudget(Generic[Holder]):
    """Shared budget of bytes that evicts its largest holder when exceeded.

    So one client with large unfinished bodies does not keep out many with small ones.

    Attributes:
        limit: bytes that all holders together may have.
        used: bytes that they have.
    """

    def __init__(self, limit: int, evict: Callable[[Holder, int], object]) -> None:
        """Start empty.

        Args:
            limit: bytes that all holders together may have.
            evict: makes a holder free its bytes, and gets their number.
        """
        self.limit = limit
        self.used = 0
        self._evict = evict
        self._held: dict[Holder, int] = {}

    def take(self, holder: Holder, more: int) -> None:
        """Charge a holder; evict the largest holders while all is too much."""
        self.used += more
        self._held[holder] = self._held.get(holder, 0) + more
        while self.used > self.limit and self._held:
            largest = max(self._held, key=self._held.__getitem__)
            size = self.settle(largest)
            self.release(size)
            self._evict(largest, size)

    def held_by(self, holder: Holder) -> int:
        """Return what a holder has that may be evicted."""
        return self._held.get(holder, 0)

    def settle(self, holder: Holder) -> int:
        """Stop evicting a holder; return its bytes, which stay in use."""
        return self._held.pop(holder, 0)

    def release(self, size: int) -> None:
        """Give settled bytes back."""
        self.used -= size
