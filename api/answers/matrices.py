"""Cache of matrices of models and GPUs, by engine, AITER and ranks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Final

from preshuffle.api.answers.answers import Answers
from preshuffle.registry import Registry
from preshuffle.registry.matrix import Matrix, matrix_of, matrix_query, narrowed
from preshuffle.registry.values.query import Query

_CAPACITY: Final = 8


class Matrices:
    """The most recent matrices of the current registry. Thread-safe."""

    def __init__(self, answers: Answers) -> None:
        """Start empty."""
        self._answers = answers
        self._registry = answers.registry
        self._cached: OrderedDict[Query, Matrix] = OrderedDict()
        self._lock = Lock()

    def get(self, fields: Mapping[str, str]) -> Matrix:
        """Return a cached matrix, or compute it within a second of CPU.

        Args:
            fields: ``engine``, ``aiter``, ``tp``, and of the models and GPUs to show ``model`` and ``arch``.

        Raises:
            QueryError: a value is wrong, the engine or the GPU is unknown.
        """
        registry = self._answers.registry
        query = matrix_query(registry, {name: fields.get(name) for name in ("engine", "aiter", "tp")})
        matrix = self._find(registry, query)
        if matrix is None:
            # a registry of its own: what it memoises goes with it, and leaves the memo of other answers as it is
            matrix = matrix_of(Registry(registry.book, registry.tables), query)
            self._store(registry, query, matrix)
        return narrowed(matrix, registry, fields.get("model", ""), fields.get("arch", ""))

    def _find(self, registry: Registry, query: Query) -> Matrix | None:
        with self._lock:
            if registry is not self._registry:
                self._registry = registry
                self._cached.clear()
            found = self._cached.get(query)
            if found is not None:
                self._cached.move_to_end(query)
            return found

    def _store(self, registry: Registry, query: Query, matrix: Matrix) -> None:
        with self._lock:
            if registry is self._registry:
                self._cached[query] = matrix
                while len(self._cached) > _CAPACITY:
                    self._cached.popitem(last=False)
