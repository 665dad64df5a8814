"""Cache of check reports: one registry checks the same observation once."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from threading import Lock
from typing import Final

from preshuffle.registry import Registry
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.report import Report

CAPACITY: Final = 4096

_Key = tuple[str, str | None, bytes]


class Reports:
    """The most recent reports, by registry, kernel tables and observation. Thread-safe."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        """Cache up to ``capacity`` reports."""
        self._cached: OrderedDict[_Key, Report] = OrderedDict()
        self._capacity = capacity
        self._lock = Lock()

    def get(self, registry: Registry, observation: Observation) -> Report:
        """Return what a registry finds in an observation."""
        key = _key(registry, observation)
        with self._lock:
            report = self._cached.get(key)
            if report is not None:
                self._cached.move_to_end(key)
                return report
        report = registry.check(observation)
        with self._lock:
            self._cached[key] = report
            while len(self._cached) > self._capacity:
                self._cached.popitem(last=False)
        return report


def _key(registry: Registry, observation: Observation) -> _Key:
    text = observation.model_dump_json(exclude_unset=True)  # a field left out is not the same as its default
    tables = registry.tables.digest if registry.tables is not None else None
    return registry.digest, tables, sha256(text.encode()).digest()
