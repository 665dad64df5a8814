"""Metrics of the fleet: deployments by state, findings, reloads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

from sqlalchemy import select

from preshuffle.api.answers import Answers
from preshuffle.api.store import FleetFilter, Store, replicas
from preshuffle.api.upkeep.file_watch import Watching


class FleetMetrics:
    """Counts of stored deployments and findings; findings are cached until a change."""

    def __init__(self, store: Store, answers: Answers, watching: Watching) -> None:
        """Read from the store, the current registry and the file watchers."""
        self._store = store
        self._answers = answers
        self._watching = watching
        self._counted: tuple[dict[str, int], dict[str, int]] | None = None

    def deployments(self) -> Mapping[str, int]:
        """Return the number of deployments by state, without the silenced.

        Raises:
            StoreError: the store does not answer.
        """
        return {str(state): number for state, number in self._store.tally().items()}

    def silenced(self) -> int:
        """Return the number of silenced deployments.

        Raises:
            StoreError: the store does not answer.
        """
        return self._store.count(FleetFilter())[1]

    def findings(self) -> Mapping[str, int]:
        """Return the number of replicas with a finding, by code.

        Raises:
            StoreError: the store does not answer.
        """
        counters = self._store.counters()
        if self._counted is None or self._counted[0] != counters:
            self._counted = (counters, self._count())
        return self._counted[1]

    def reloads(self) -> Mapping[str, tuple[int, int, bool]]:
        """Return ``(successes, failures, files valid now)`` per kind of watched files."""
        watching = self._watching
        watchers = {"registry": watching.book, "tables": watching.tables, "tokens": watching.tokens}
        states = {kind: watcher.state for kind, watcher in watchers.items()}
        return {kind: (state.reloads, state.failures, not state.problems) for kind, state in states.items()}

    def digest(self) -> str:
        """Return the digest of the book that the service answers from."""
        return self._answers.registry.digest

    def _count(self) -> dict[str, int]:
        query = select(replicas.c.judgement).where(replicas.c.verdict.not_in(["ok", "unknown"]))
        counts: Counter[str] = Counter()
        with self._store.transaction() as connection:
            for row in connection.execute(query):
                groups = json.loads(row.judgement)
                counts.update({finding["code"] for group in groups for finding in group["findings"]})
        return dict(counts)
