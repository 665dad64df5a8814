"""Progress of a long command, as a line or JSON events."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from preshuffle.layouts.laid_out import RunEvent

_EVERY: Final = 30.0
"""Seconds between two lines where standard error is no terminal."""


class ProgressLine:
    """Shows a run's events.

    On a terminal one line is rewritten; elsewhere a line appears every half a minute. Standard output stays free.
    """

    def __init__(self, *, json: bool) -> None:
        """Show nothing yet.

        Args:
            json: print every event to standard output, one JSON document a line.
        """
        self._json = json
        self._terminal = sys.stderr.isatty()
        self._shown = time.monotonic()
        self._width = 0

    def __call__(self, event: RunEvent) -> None:
        """Show an event."""
        if self._json:
            print(event.model_dump_json(exclude_none=True), flush=True)
        elif self._terminal:
            self._rewrite("" if event.event == "finished" else describe_event(event))
        elif event.event != "finished" and time.monotonic() - self._shown >= _EVERY:
            self._shown = time.monotonic()
            print(f"preshuffle: {describe_event(event)}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line from the terminal."""
        if self._terminal and not self._json:
            self._rewrite("")

    def _rewrite(self, text: str) -> None:
        print(f"\r{text.ljust(self._width)}", end="" if text else "\r", file=sys.stderr, flush=True)
        self._width = len(text)


def describe_event(event: RunEvent) -> str:
    """Return an event as a line: amount, rate and remaining time.

    Example:
        >>> from preshuffle.layouts.laid_out import RunEvent
        >>> describe_event(RunEvent(event="advanced", done=5 * 10**9, total=10**10, seconds=5, rate=1e9, eta=5))
        '5.0 of 10.0 GB, 50%, 1,000 MB/s, 0:05 left'
    """
    share = event.done / event.total if event.total else 1.0
    parts = [f"{event.done / 1e9:.1f} of {event.total / 1e9:.1f} GB", f"{share:.0%}", f"{event.rate / 1e6:,.0f} MB/s"]
    if event.eta is not None:
        parts.append(f"{duration(event.eta)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Format seconds as ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
