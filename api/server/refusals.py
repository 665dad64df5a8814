"""Refusals of whole connections: responses, and a rate-limited log."""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from typing import Final

from preshuffle.api.web import PROBLEM_TYPE, ProblemError

log = logging.getLogger("preshuffle.api.requests")

_EVERY_S: Final = 1.0
"""Between two log lines of one kind; each says how many there were."""
_RETRY_S: Final = 5


class RefusalLog:
    """Logs refusals with the client's address. On the event loop only."""

    def __init__(self) -> None:
        """Start without refusals."""
        self._next_at: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def note(self, kind: str, client: tuple[str, int] | None) -> None:
        """Count a refusal, and log it, once a second for each kind."""
        count = self._counts.get(kind, 0) + 1
        now = time.monotonic()
        if now < self._next_at.get(kind, 0.0):
            self._counts[kind] = count
            return
        self._next_at[kind], self._counts[kind] = now + _EVERY_S, 0
        address = client[0] if client else "unknown"
        fields = {"problem": kind, "client": address, "refused": count}
        log.warning("a connection from %s was refused: %s", address, kind, extra=fields)


@lru_cache(maxsize=32)
def refusal(kind: str, detail: str) -> bytes:
    """Return a whole response."""
    problem = ProblemError(kind, detail).problem("/")
    body = problem.model_dump_json(exclude_none=True).encode()
    retry = f"retry-after: {_RETRY_S}\r\n" if problem.status == 503 else ""
    head = (
        f"HTTP/1.1 {problem.status} {problem.title}\r\ncontent-type: {PROBLEM_TYPE}\r\n"
        f"content-length: {len(body)}\r\n{retry}connection: close\r\n\r\n"
    )
    return head.encode() + body
