"""Run plans one at a time, bounded in time."""

from __future__ import annotations

import threading
import time
from typing import Final

from anyio import CapacityLimiter, to_thread

from preshuffle.api.answers import Answers
from preshuffle.api.rollout.plan import Candidate, Plan, plan, plan_in_child
from preshuffle.api.store import Store
from preshuffle.api.upkeep import Aside, AsideError, worker_process
from preshuffle.api.web import ProblemError, invalid_input
from preshuffle.registry.base.errors import BookError, FieldProblem

_GRACE_S: Final = 2.0
"""How long a plan may still run when the service is told to end."""


_AGAIN_S: Final = 0.1


_LONGEST_S: Final = 300.0
"""How long a plan may take: one for ten thousand deployments takes about one minute."""


class Planner:
    """Plans, one at a time."""

    def __init__(self, store: Store, answers: Answers) -> None:
        """Plan for what is stored, from what answers now."""
        self._store = store
        self._answers = answers
        self._alone = CapacityLimiter(1)
        self._aside = Aside()
        self._ending = False

    def stop(self) -> None:
        """Take no more plans, and give up the one that runs if it does not end soon: the service is ending."""
        self._ending = True
        threading.Thread(target=self._give_up, name="giving up plans", daemon=True).start()

    def _give_up(self) -> None:
        time.sleep(_GRACE_S)
        while True:  # one that is just being started is met the next time
            self._aside.stop()
            time.sleep(_AGAIN_S)

    async def plan(self, candidate: Candidate) -> Plan:
        """Return what a candidate would change.

        Raises:
            ProblemError: the candidate does not load, or the plan was given up.
            StoreError: the store does not answer.
        """
        async with self._alone:
            return await to_thread.run_sync(self._plan, candidate)

    def _plan(self, candidate: Candidate) -> Plan:
        try:
            if self._ending:
                raise AsideError
            if candidate.books or self._store.has_more_than(worker_process.FEW):
                return self._plan_in_child(candidate)
            return plan(self._store, self._answers.registry, candidate)
        except BookError as error:
            faults = [
                FieldProblem(f"{problem.file}:{problem.line}:{problem.column}", problem.message, problem.valid)
                for problem in error.problems
            ]
            raise invalid_input(faults) from None
        except AsideError:
            detail = f"the plan was given up: it took {_LONGEST_S:g} s, the service is ending, or memory ran out"
            raise ProblemError("interrupted", detail) from None

    def _plan_in_child(self, candidate: Candidate) -> Plan:
        """Plan in another process, which is ended in time: a pattern of somebody's book may never end by itself."""
        limit = threading.Timer(_LONGEST_S, self._aside.stop)
        limit.daemon = True
        limit.start()
        try:
            return self._aside.run(plan_in_child, self._store.url, self._answers.registry, candidate)
        finally:
            limit.cancel()
