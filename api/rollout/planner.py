"""Bounded queue of plans: one runs at a time, with a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from anyio import CapacityLimiter, Event, create_task_group, move_on_after, sleep_forever, to_thread

from preshuffle.api.answers import Answers
from preshuffle.api.rollout.plan import plan, plan_in_child
from preshuffle.api.rollout.plan_values import Candidate, Plan
from preshuffle.api.store import Store
from preshuffle.api.upkeep import WorkerProcess, WorkerProcessError, worker_process
from preshuffle.api.web import ProblemError, invalid_input
from preshuffle.registry.base.errors import BookError, FieldProblem

_GRACE_S: Final = 2.0
"""Seconds that a plan may still run when the service shuts down."""
_RETRY_S: Final = 0.1
MAX_WAITING: Final = 4
"""Plans that wait for the running one."""
_RETRY_AFTER: Final = "30"
_TIMEOUT_S: Final = 300.0
"""Seconds that a plan may take: one for ten thousand deployments takes about one minute."""


class Planner:
    """Bounded queue of plans; costly ones run in a child process."""

    def __init__(self, store: Store, answers: Answers) -> None:
        """Plan for the stored deployments, against the current registry."""
        self._store = store
        self._answers = answers
        self._one_at_a_time = CapacityLimiter(1)
        self._jobs = 0
        self._worker = WorkerProcess()
        self._shutting_down = False

    def stop(self) -> None:
        """Refuse further plans; cancel the running one after a grace period."""
        self._shutting_down = True
        threading.Thread(target=self._cancel, name="cancel plans", daemon=True).start()

    def _cancel(self) -> None:
        time.sleep(_GRACE_S)
        while True:  # a process that is just starting is met by the next round
            self._worker.stop()
            time.sleep(_RETRY_S)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn to plan, unless too many wait already.

        Raises:
            ProblemError: too many do.
        """
        if self._jobs > MAX_WAITING:
            detail = f"one plan runs and {MAX_WAITING} wait already; try again later"
            raise ProblemError("busy", detail, headers={"Retry-After": _RETRY_AFTER})
        self._jobs += 1
        try:
            async with self._one_at_a_time:
                yield
        finally:
            self._jobs -= 1

    async def plan(self, candidate: Candidate) -> Plan:
        """Return what a candidate would change, within a turn.

        A caller that is cancelled ends the child process.

        Raises:
            ProblemError: the candidate does not load, or the plan was cancelled.
            StoreError: the store does not answer.
        """
        outcome: list[Plan | Exception] = []
        done = Event()
        async with create_task_group() as group:
            group.start_soon(self._stop_when_cancelled, done)
            try:
                outcome.append(await to_thread.run_sync(self._plan, candidate))
            except Exception as error:  # not out of the group, which would wrap it
                outcome.append(error)
            finally:
                done.set()
            group.cancel_scope.cancel()
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    async def _stop_when_cancelled(self, done: Event) -> None:
        try:
            await sleep_forever()
        finally:
            while not done.is_set():  # a process that is just starting is met by the next round
                self._worker.stop()
                with move_on_after(_RETRY_S, shield=True):
                    await done.wait()

    def _plan(self, candidate: Candidate) -> Plan:
        try:
            if self._shutting_down:
                raise WorkerProcessError
            if candidate.books or candidate.tables or self._store.has_more_than(worker_process.FEW):
                return self._plan_in_child(candidate)
            return plan(self._store, self._answers.registry, candidate)
        except BookError as error:
            faults = [
                FieldProblem(f"{problem.file}:{problem.line}:{problem.column}", problem.message, problem.valid)
                for problem in error.problems
            ]
            raise invalid_input(faults) from None
        except WorkerProcessError:
            reasons = f"it took {_TIMEOUT_S:g} s, the service is shutting down, or memory ran out"
            raise ProblemError("interrupted", f"the plan was cancelled: {reasons}") from None

    def _plan_in_child(self, candidate: Candidate) -> Plan:
        """Plan in a child process with a time limit.

        An uploaded book may take long to compare.
        """
        timer = threading.Timer(_TIMEOUT_S, self._worker.stop)
        timer.daemon = True
        timer.start()
        try:
            return self._worker.run(plan_in_child, self._store.url, self._answers.registry, candidate)
        finally:
            timer.cancel()
