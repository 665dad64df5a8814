"""Exponential backoff with jitter; the service's own ``Retry-After`` counts."""

from __future__ import annotations

import random
from typing import Final

FIRST_S: Final = 0.5
LONGEST_S: Final = 60.0
LONGEST_RETRY_AFTER_S: Final = 3600.0
"""A longer ``Retry-After`` is taken as this."""


class Backoff:
    """Delays after failures in a row."""

    def __init__(self, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> None:
        """Begin without a failure."""
        self._first_s, self._longest_s = first_s, longest_s
        self._failures = 0

    def succeed(self) -> None:
        """Begin again with the first delay."""
        self._failures = 0

    def fail(self, retry_after: float | None = None) -> float:
        """Return the seconds to wait after a failure.

        They double with each failure in a row; half of them is random, so that a fleet does not return at one moment.

        Args:
            retry_after: seconds that the service asks for; it waits no shorter.
        """
        ceiling = min(self._longest_s, self._first_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        delay = ceiling * (0.5 + random.random() / 2)
        if retry_after is None:
            return delay
        return max(delay, min(retry_after, LONGEST_RETRY_AFTER_S) + random.random() * self._first_s)
