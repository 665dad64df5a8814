"""Commands that stop at a signal and resume when repeated."""

from __future__ import annotations

import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from preshuffle.api.commands.checkpoints.progress_bar import ProgressListener, progress_listener

TERMINATED: Final = 128 + signal.SIGTERM
"""Exit code of a process that SIGTERM ended, as shells state it."""


@contextmanager
def resumable(*, json: bool) -> Iterator[ProgressListener]:
    """Show progress; on SIGINT or SIGTERM close files.

    Says how to go on then.

    Args:
        json: events as JSON documents.

    Yields:
        What shows the events of the run.
    """
    allow_open_files()
    listener = progress_listener(json=json)
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if main else None
    stopped = False
    try:
        yield listener
    except (KeyboardInterrupt, SystemExit):
        stopped = True
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
        listener.clear()
        if stopped:
            print("preshuffle: stopped; the same command again resumes", file=sys.stderr, flush=True)


def allow_open_files() -> None:
    """Raise the limit of open files as far as the system allows.

    Each mapped shard and laid-out file takes one, and shells allow 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)
