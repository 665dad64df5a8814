"""Progress of a run, as events."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock
from typing import Literal

from preshuffle.registry.base.frozen import Frozen

EventKind = Literal["fetching", "fetched", "started", "resumed", "advanced", "file", "finished"]


class RunEvent(Frozen):
    """What happened in a run.

    Attributes:
        event: ``started``; ``resumed`` for a file that an earlier run finished; ``advanced`` now and then; ``file``
            for a file that appeared; ``finished``. Before them ``fetching`` now and then, and ``fetched``, where the
            checkpoint is of another file system; their numbers are those of what is fetched.
        file: which file.
        done: bytes that are written.
        total: bytes that will be, about.
        seconds: since the start.
        rate: bytes per second that this run has written.
        eta: seconds that remain at that rate; None where there is none yet.
    """

    event: EventKind
    file: str | None = None
    done: int
    total: int
    seconds: float
    rate: float
    eta: float | None


Listener = Callable[[RunEvent], None]


class CancelledRun(Exception):
    """Raised inside workers of a run that another worker's error ended."""


class Progress:
    """Counts bytes of several threads, and tells a listener."""

    EVERY = 0.2
    """Seconds between two events of kind ``advanced``."""

    def __init__(self, total: int, listener: Listener | None, advanced: EventKind = "advanced") -> None:
        """Begin at zero.

        Args:
            total: bytes to write.
            listener: called with every event, by one thread at a time.
            advanced: kind of the events between start and end.
        """
        self._advanced = advanced
        self.total = total
        self._listener = listener
        self._lock = Lock()
        self._begin = self._told = time.monotonic()
        self._done = self._resumed = 0
        self._stop = Event()

    def stop(self) -> None:
        """End the work of all threads at their next step."""
        self._stop.set()

    def advance(self, nbytes: int) -> None:
        """Count bytes that were written.

        Raises:
            CancelledRun: the run was stopped.
        """
        if self._stop.is_set():
            raise CancelledRun
        with self._lock:
            self._done += nbytes
            now = time.monotonic()
            if now - self._told >= self.EVERY:
                self._told = now
                self._tell(self._advanced)

    def resume(self, file: str, nbytes: int) -> None:
        """Count a file that an earlier run finished."""
        with self._lock:
            self._done += nbytes
            self._resumed += nbytes
            self._tell("resumed", file)

    def tell(self, event: EventKind, file: str | None = None) -> None:
        """Tell the listener of an event."""
        with self._lock:
            self._tell(event, file)

    def _tell(self, event: EventKind, file: str | None = None) -> None:
        if self._listener is None:
            return
        seconds = time.monotonic() - self._begin
        rate = (self._done - self._resumed) / seconds if seconds > 0 else 0.0
        eta = max(0, self.total - self._done) / rate if rate > 0 else None
        self._listener(
            RunEvent(event=event, file=file, done=self._done, total=self.total, seconds=seconds, rate=rate, eta=eta)
        )
