"""Bounds how much a book's entries may be compared with each other."""

from __future__ import annotations

import sys
from typing import Final

from preshuffle.registry.base.errors import PreshuffleError

MOST: Final = 150_000
"""Steps of about a microsecond that the checks of one book may take; the packaged book takes a tenth."""


class TooCostlyError(PreshuffleError):
    """Book that cannot be checked in a short time."""


class Effort:
    """Counts the steps that comparisons take.

    Checks that compare entries in pairs, or values in combinations, take time that grows faster than the book. They
    count their steps here, so that the same book is refused on every machine.

    Example:
        >>> effort = Effort(10)
        >>> effort.spend(4)
        >>> effort.left
        6
    """

    def __init__(self, steps: int = sys.maxsize) -> None:
        """Allow a number of steps."""
        self.left = steps

    def spend(self, steps: int) -> None:
        """Take steps off.

        Raises:
            TooCostlyError: more than were allowed.
        """
        self.left -= steps
        if self.left < 0:
            raise TooCostlyError(
                "too costly to check: its entries would have to be compared pair by pair, or value by value; exact "
                "values in `when` keep rules apart, where globs, ranges and long lists do not"
            )
