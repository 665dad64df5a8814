"""Long work beside the serving process, in a process of its own: whoever reads is not held up."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, TypeVar

Result = TypeVar("Result")
_NICER: Final = 10
FEW: Final = 100
"""Replicas that are looked at in less time than a process needs to start."""


class AsideError(Exception):
    """The process beside us ended without an answer: it was told to, or the system had no memory for it."""


class Aside:
    """One piece of work at a time, in a process that ends with it. Stop it from any thread."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._process: Any = None

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function there; function, arguments and result must be picklable.

        Raises:
            AsideError: the process ended before it had a result.
            Exception: what the function raised.
        """
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, function), daemon=True)
        process.start()
        self._process = process
        theirs.close()
        try:
            ours.send(arguments)  # here, not at the start: a process that dies before it reads must not be waited for
            worked, value = ours.recv()
        except (EOFError, ConnectionError):
            raise AsideError(f"{function.__name__} ended without a result") from None
        finally:
            ours.close()
            process.join()
            self._process = None
        if not worked:
            raise value
        result: Result = value
        return result

    def stop(self) -> None:
        """End what runs."""
        process = self._process
        if process is not None:
            process.terminate()


def is_orphan(parent: int) -> bool:
    """Whether the process that started this one has ended."""
    return os.getppid() != parent


def _work(answer: Connection, function: Callable[..., Any]) -> None:
    os.nice(_NICER)
    try:
        told = (True, function(*answer.recv()))
    except Exception as error:
        told = (False, error)
    answer.send(told)
    answer.close()
