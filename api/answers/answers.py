"""Decisions, kept as the bytes that are sent: one query is decided once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from time import perf_counter
from typing import Final

from anyio import to_thread

from preshuffle.api.answers.reports import Reports
from preshuffle.api.web import ProblemError, as_problem
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import PreshuffleError
from preshuffle.registry.values.decision import Decision
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.query import Query
from preshuffle.registry.values.report import Report

BUDGET: Final = 32 << 20
"""Bytes of JSON that are kept."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the registry says to a query: a decision and its JSON, or the problem."""

    decision: Decision | None = None
    body: bytes = b""
    problem: ProblemError | None = None


class Answers:
    """The registry's answers, the most recently used ones kept. Any thread may ask."""

    def __init__(self, registry: Registry, budget: int = BUDGET) -> None:
        """Keep up to ``budget`` bytes of JSON. ``observe`` is told the seconds that each new answer took."""
        self.registry = registry
        self.followers: list[Callable[[Registry], None]] = []
        self._budget = budget
        self._size = 0
        self._kept: OrderedDict[str, Answer] = OrderedDict()
        self._lock = Lock()
        self._reports = Reports()
        self.observe: Callable[[float], object] = lambda _seconds: None

    def check(self, observation: Observation) -> Report:
        """Return what the registry finds in an observation."""
        return self._reports.get(self.registry, observation)

    def replace(self, registry: Registry) -> None:
        """Answer from another registry from now on; nothing that an earlier one said is kept."""
        with self._lock:
            self.registry = registry
            self._kept.clear()
            self._size = 0
        for follower in self.followers:
            follower(registry)

    def get(self, query: Query) -> Answer:
        """Return the answer to a query."""
        key = _key(query)
        known = self._known(key)
        return known if known is not None else self._decide(key, query)

    async def ask(self, query: Query) -> Answer:
        """Return the answer to a query; one that must be worked out does not hold up the event loop."""
        key = _key(query)
        known = self._known(key)
        return known if known is not None else await to_thread.run_sync(self._decide, key, query)

    def _known(self, key: str) -> Answer | None:
        with self._lock:
            answer = self._kept.get(key)
            if answer is not None:
                self._kept.move_to_end(key)
            return answer

    def _decide(self, key: str, query: Query) -> Answer:
        registry, started = self.registry, perf_counter()
        try:
            decision = registry.resolve(query)
        except PreshuffleError as error:
            answer = Answer(problem=as_problem(error))
        else:
            answer = Answer(decision, decision.model_dump_json().encode())
        self.observe(perf_counter() - started)
        with self._lock:
            if registry is not self.registry:
                return answer  # it was replaced meanwhile
            self._forget(key)
            self._kept[key] = answer
            self._size += _cost(key, answer)
            while self._size > self._budget:
                self._forget(next(iter(self._kept)))
        return answer

    def _forget(self, key: str) -> None:
        answer = self._kept.pop(key, None)
        if answer is not None:
            self._size -= _cost(key, answer)


def _key(query: Query) -> str:
    """The query as JSON in canonical form; its environment is a set, so its order does not count."""
    return query.model_copy(update={"env": dict(sorted(query.env.items()))}).model_dump_json()


def _cost(key: str, answer: Answer) -> int:
    return len(key) + len(answer.body) + 1024
