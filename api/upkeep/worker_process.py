"""Child process for long work, so that the serving process stays responsive."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
from anyio import BrokenWorkerProcess, CancelScope, to_process

from preshuffle.api.web import Level, Style, current_set_up, set_up

Result = TypeVar("Result")
_NICE: Final = 10
_PARENT_CHECK_S: Final = 1.0
MAX_MEMORY: Final = 2 << 30
"""Bytes of memory of its own that the child process may take; what it shares with others does not count."""
_MAX_LOG: Final = 1 << 20
"""Bytes of the child's log that are passed on."""
FEW: Final = 100
"""Replicas that are checked in less time than a process needs to start."""


class WorkerProcessError(Exception):
    """The child process was stopped or died before it had a result."""


class WorkerProcess:
    """Runs a function in a child process that ends with it.

    ``anyio.to_process`` starts the process and carries arguments, results and errors. What it lacks is added here: a
    call for threads without an event loop, a stop from any other thread, a nice level, a limit of memory, and an end
    with the parent.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._stop: Callable[[], object] | None = None

    @property
    def running(self) -> bool:
        """Whether a function runs."""
        return self._stop is not None

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in a child process.

        Function, arguments and result must be picklable.

        Raises:
            WorkerProcessError: the process ended before it had a result, or its memory ran out.
            Exception: what the function raised.
        """
        try:
            return anyio.run(self._run, function, arguments)
        except (BrokenWorkerProcess, MemoryError):
            raise WorkerProcessError(f"{function.__name__} ended without a result") from None

    def stop(self) -> None:
        """Kill the process that runs, from any other thread."""
        stop = self._stop
        if stop is not None:
            with suppress(RuntimeError):  # it ended meanwhile, and its event loop with it
                stop()

    async def _run(self, function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
        loop = asyncio.get_running_loop()
        with _relayed_log() as file, CancelScope() as scope:
            self._stop = lambda: loop.call_soon_threadsafe(scope.cancel)
            try:
                with CancelScope(shield=True):  # AnyIO loses a process that is cancelled while it starts
                    await to_process.run_sync(_prepare, os.getpid(), file, current_set_up())
                return await to_process.run_sync(function, *arguments, cancellable=True)
            finally:
                self._stop = None
        raise BrokenWorkerProcess


@contextmanager
def _relayed_log() -> Iterator[str | None]:
    """Yield a file for the child's log, and pass it on at the end; None where none can be made.

    AnyIO gives the child a pipe as standard error that nobody reads: it would be lost, and block the child once full.
    """
    try:
        file = tempfile.NamedTemporaryFile(prefix="preshuffle-log-")  # the with block is below
    except OSError:
        yield None
        return
    with file:
        try:
            yield file.name
        finally:
            sys.stderr.write(file.read(_MAX_LOG).decode(errors="replace"))
            sys.stderr.flush()


def _prepare(parent: int, file: str | None, log: tuple[Style, Level] | None) -> None:
    """Lower this process's priority, limit its memory, log as its parent does, and end soon after it.

    A timer's signal also ends a regular expression that would never end; a thread would wait for it.
    """
    os.nice(_NICE)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = MAX_MEMORY if hard == resource.RLIM_INFINITY else min(MAX_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    if file is not None and log is not None:
        set_up(*log, Path(file).open("a", encoding="utf-8"))

    def check(_number: int, _frame: object) -> None:
        if os.getppid() != parent:
            os._exit(1)

    signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, _PARENT_CHECK_S, _PARENT_CHECK_S)
