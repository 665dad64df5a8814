"""Tasks of a Ray cluster, of which some are submitted at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.registry import PreshuffleError

_PER_PROCESSOR: Final = 2
"""Tasks that are submitted for each processor: one runs, one waits, so that no processor waits for this process, and an
autoscaler sees that there is more to do."""
_EVERY: Final = 1.0
"""Seconds after which the cluster's processors are counted again."""
_CANCELLING: Final = 5.0
"""Seconds for which tasks may take to remove what they have half-written."""


@dataclass(frozen=True, slots=True)
class NamedWork:
    """Work of one task.

    Attributes:
        name: of the task, for people.
        subject: what it works on.
    """

    name: str
    subject: Any


class RayTasks:
    """Submitted tasks of one run."""

    def __init__(self, ray: Any, workers: int | None, retries: int) -> None:
        """Submit nothing yet.

        Args:
            ray: the connected module.
            workers: tasks at once; None for what keeps the cluster's processors busy.
            retries: how often a task is repeated whose node or process died.
        """
        self._ray, self._workers, self._retries = ray, workers, retries
        self._functions: dict[Callable[..., Any], Any] = {}
        self._pending: dict[Any, NamedWork] = {}
        self._counted = (0.0, 0)

    def __len__(self) -> int:
        """Return how many tasks are not done."""
        return len(self._pending)

    def has_room(self) -> bool:
        """Return whether one more task may be submitted."""
        return len(self._pending) < (self._workers or self._wanted())

    def submit(self, work: NamedWork, function: Callable[..., Any], *arguments: Any) -> None:
        """Submit a task of one processor; Ray spreads tasks over nodes."""
        if function not in self._functions:  # exported to the cluster once
            self._functions[function] = self._ray.remote(function)
        task = self._functions[function].options(
            name=work.name, num_cpus=1, max_retries=self._retries, retry_exceptions=False, scheduling_strategy="SPREAD"
        )
        self._pending[task.remote(*arguments)] = work

    def done(self, seconds: float) -> Iterator[tuple[Any, Any]]:
        """Wait for a task; yield what it worked on, and its result.

        Args:
            seconds: to wait at most.

        Raises:
            PreshuffleError: the task raised it.
            LaidOutError: the task failed otherwise, or ended without a result.
        """
        if not self._pending:
            return
        done, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=seconds)
        for ref in done:
            work = self._pending.pop(ref)
            yield work.subject, self._result(ref, work)

    def subjects(self) -> list[Any]:
        """Return what the tasks that are not done work on."""
        return [work.subject for work in self._pending.values()]

    def cancel(self) -> None:
        """Stop all tasks; they remove what they have half-written."""
        refs = list(self._pending)
        with suppress(self._ray.exceptions.RayError):  # the cluster may be what was lost
            for ref in refs:
                self._ray.cancel(ref)
            if refs:
                self._ray.wait(refs, num_returns=len(refs), timeout=_CANCELLING)

    def _wanted(self) -> int:
        """Return how many tasks keep the cluster's processors busy."""
        counted, found = self._counted
        if not found or time.monotonic() - counted >= _EVERY:
            found = max(1, _PER_PROCESSOR * int(self._ray.cluster_resources().get("CPU", 0)))
            self._counted = (time.monotonic(), found)
        return found

    def _result(self, ref: Any, work: NamedWork) -> Any:
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, PreshuffleError):
                raise cause from None
            raise LaidOutError(f"{work.name}: its task failed: {_last_line(error)}") from None
        except self._ray.exceptions.RayError as error:
            raise LaidOutError(
                f"{work.name}: its task ended {self._retries + 1} times without a result: {_last_line(error)}; "
                "run the same command again, it resumes"
            ) from None


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
