"""Cache of the registry's decisions and of their JSON."""

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
"""Bytes of JSON that are cached."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to a query: a decision and its JSON, or a problem."""

    decision: Decision | None = None
    body: bytes = b""
    problem: ProblemError | None = None


class Answers:
    """Current registry and an LRU cache of its answers. Thread-safe."""

    def __init__(
        self,
        registry: Registry,
        budget: int = BUDGET,
        observe: Callable[[float], object] = lambda _seconds: None,
        root: str = "",
    ) -> None:
        """Answer from a registry.

        Args:
            registry: the first one; ``replace`` gives another.
            budget: bytes of JSON that are cached.
            observe: called with the seconds that each new decision took.
            root: the service's root path, with which paths in answers begin.
        """
        self.registry = registry
        self.root = root
        self._budget = budget
        self._observe = observe
        self._size = 0
        self._cached: OrderedDict[str, Answer] = OrderedDict()
        self._lock = Lock()
        self._reports = Reports()

    def check(self, observation: Observation) -> Report:
        """Return what the registry finds in an observation."""
        return self._reports.get(self.registry, observation)

    def replace(self, registry: Registry) -> None:
        """Answer from another registry from now on, with an empty cache."""
        with self._lock:
            self.registry = registry
            self._cached.clear()
            self._size = 0

    def get(self, query: Query) -> Answer:
        """Return the answer to a query."""
        key = _key(query)
        found = self._find(key)
        return found if found is not None else self._decide(key, query)

    async def ask(self, query: Query) -> Answer:
        """Return the answer to a query, deciding in a thread."""
        key = _key(query)
        found = self._find(key)
        return found if found is not None else await to_thread.run_sync(self._decide, key, query)

    def _find(self, key: str) -> Answer | None:
        with self._lock:
            answer = self._cached.get(key)
            if answer is not None:
                self._cached.move_to_end(key)
            return answer

    def _decide(self, key: str, query: Query) -> Answer:
        registry, started = self.registry, perf_counter()
        try:
            decision = registry.resolve(query)
        except PreshuffleError as error:
            answer = Answer(problem=as_problem(error))
        else:
            answer = Answer(decision, decision.model_dump_json().encode())
        self._observe(perf_counter() - started)
        with self._lock:
            if registry is not self.registry:
                return answer  # replaced meanwhile
            self._drop(key)
            self._cached[key] = answer
            self._size += _cost(key, answer)
            while self._size > self._budget:
                self._drop(next(iter(self._cached)))
        return answer

    def _drop(self, key: str) -> None:
        answer = self._cached.pop(key, None)
        if answer is not None:
            self._size -= _cost(key, answer)


def _key(query: Query) -> str:
    """Return the query as canonical JSON; the environment is sorted."""
    return query.model_copy(update={"env": dict(sorted(query.env.items()))}).model_dump_json()


def _cost(key: str, answer: Answer) -> int:
    return len(key) + len(answer.body) + 1024
