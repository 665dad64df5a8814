"""Exit and fork handlers of background work."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from typing import Final, Protocol
from weakref import WeakSet

EXIT_S: Final = 2.0
"""Seconds that the end of the process may be delayed, by all members together."""


class Member(Protocol):
    """Object with background work."""

    def stop(self, deadline: float, *, goodbye: bool) -> None:
        """Begin to end, until a time of the monotonic clock."""

    def join(self, deadline: float) -> None:
        """Wait for the end, until a time of the monotonic clock."""

    def forked(self) -> None:
        """Begin anew in a child process: the work is the parent's."""


class Lifetimes:
    """Exit and fork handlers: members end with the process.

    In a fork they begin anew. The handlers of ``atexit``, which come after all threads that a process waits for, are
    not called in the child processes of ``multiprocessing``: there a thread waits for the main thread's end.
    """

    def __init__(self) -> None:
        """Begin without members."""
        self._members: WeakSet[Member] = WeakSet()
        self._watcher: threading.Thread | None = None
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forked)
        atexit.register(self._end)

    def add(self, member: Member) -> None:
        """Add a member.

        Raises:
            RuntimeError: the process is ending, or may have no more threads.
        """
        with self._lock:
            self._members.add(member)
            if self._watcher is None and _is_child():
                watcher = threading.Thread(target=self._watch, name="preshuffle-exit", daemon=False)
                watcher.start()
                self._watcher = watcher

    def _watch(self) -> None:
        threading.main_thread().join()
        self._end()

    def _end(self) -> None:
        deadline = time.monotonic() + EXIT_S
        crashed = getattr(sys, "last_value", None) is not None
        members = list(self._members)
        for member in members:
            member.stop(deadline, goodbye=not crashed)
        for member in members:
            member.join(deadline)

    def _forked(self) -> None:
        self._lock = threading.Lock()
        self._watcher = None
        members, self._members = list(self._members), WeakSet()
        for member in members:
            member.forked()


def _is_child() -> bool:
    """Whether ``multiprocessing`` started this process."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


LIFETIMES: Final = Lifetimes()
"""Of this process."""
