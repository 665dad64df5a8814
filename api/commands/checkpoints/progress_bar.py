"""Progress of a long command: a bar, plain lines or JSON events."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from preshuffle.layouts.laid_out import RunEvent

_EVERY: Final = 30.0
"""Seconds between two plain lines."""
_PHASES: Final = {"fetching": "fetching", "fetched": "fetching"}
"""What a run does, by the kind of an event; anything else is its own work."""


class ProgressListener(Protocol):
    """Shows a run's events; standard output stays free but for JSON."""

    def __call__(self, event: RunEvent) -> None:
        """Show an event."""

    def clear(self) -> None:
        """Remove what is no result from the terminal."""


def progress_listener(*, json: bool, work: str = "writing") -> ProgressListener:
    """Choose how a run's events are shown.

    Args:
        json: print every event to standard output, one JSON document a line.
        work: what the run does, as the bar calls it.

    Returns:
        A bar of rich's on a terminal, where rich is installed (extra: progress); else a line every half a minute.
    """
    if json:
        return JsonEvents()
    if sys.stderr.isatty():
        try:
            return ProgressBar(work)
        except ImportError:
            pass
    return PlainLines()


class JsonEvents:
    """Prints events as JSON documents, one a line."""

    def __call__(self, event: RunEvent) -> None:
        """Print an event."""
        print(event.model_dump_json(exclude_none=True), flush=True)

    def clear(self) -> None:
        """Do nothing: documents stay."""


class PlainLines:
    """Prints a line to standard error now and then."""

    def __init__(self) -> None:
        """Print nothing yet."""
        self._shown = time.monotonic()

    def __call__(self, event: RunEvent) -> None:
        """Print an event, if the last line is old enough."""
        if event.event not in ("finished", "fetched") and time.monotonic() - self._shown >= _EVERY:
            self._shown = time.monotonic()
            print(f"preshuffle: {describe_event(event)}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Do nothing: lines stay."""


class ProgressBar:
    """Shows a bar with rate and remaining time on a terminal."""

    def __init__(self, work: str = "writing") -> None:
        """Show nothing yet.

        Args:
            work: what the run does.

        Raises:
            ImportError: rich is not installed.
        """
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TextColumn("{task.fields[pace]}"))
        self._progress: Any = Progress(*columns, console=Console(stderr=True), transient=True)
        self._work = work
        self._tasks: dict[str, Any] = {}

    def __call__(self, event: RunEvent) -> None:
        """Move the bar."""
        phase = _PHASES.get(event.event, self._work)
        if not self._tasks:
            self._progress.start()
        if phase not in self._tasks:
            self._tasks[phase] = self._progress.add_task(phase, total=event.total, pace="")
        self._progress.update(self._tasks[phase], completed=event.done, total=event.total, pace=pace_of(event))

    def clear(self) -> None:
        """Remove the bar."""
        if self._tasks:
            self._progress.stop()


def describe_event(event: RunEvent) -> str:
    """Return an event as a line: amount, rate and remaining time.

    Example:
        >>> from preshuffle.layouts.laid_out import RunEvent
        >>> describe_event(RunEvent(event="advanced", done=5 * 10**9, total=10**10, seconds=5, rate=1e9, eta=5))
        '5.0 of 10.0 GB, 50%, 1,000 MB/s, 0:05 left'
    """
    share = event.done / event.total if event.total else 1.0
    verb = "fetched " if event.event in _PHASES else ""
    return f"{verb}{event.done / 1e9:.1f} of {event.total / 1e9:.1f} GB, {share:.0%}, {pace_of(event)}"


def pace_of(event: RunEvent) -> str:
    """Return an event's rate and remaining time."""
    left = "" if event.eta is None else f", {duration(event.eta)} left"
    return f"{event.rate / 1e6:,.0f} MB/s{left}"


def duration(seconds: float) -> str:
    """Format seconds as ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
