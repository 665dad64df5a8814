"""Reports of checks, kept: the same observation is checked once by one registry."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from threading import Lock
from typing import Final

from preshuffle.registry import Registry
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.report import Report

KEPT: Final = 4096

_Key = tuple[str, str | None, bytes]


class Reports:
    """The most recent reports, by registry, kernel tables and observation. Any thread may ask."""

    def __init__(self, kept: int = KEPT) -> None:
        """Keep up to ``kept`` reports."""
        self._kept: OrderedDict[_Key, Report] = OrderedDict()
        self._most = kept
        self._lock = Lock()

    def get(self, registry: Registry, observation: Observation) -> Report:
        """Return what a registry finds in an observation."""
        key = _key(registry, observation)
        with self._lock:
            report = self._kept.get(key)
            if report is not None:
                self._kept.move_to_end(key)
                return report
        report = registry.check(observation)
        with self._lock:
            self._kept[key] = report
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return report


def _key(registry: Registry, observation: Observation) -> _Key:
    told = observation.model_dump_json(exclude_unset=True)  # what was left out is not what was told as a default
    tables = registry.tables.digest if registry.tables is not None else None
    return registry.digest, tables, sha256(told.encode()).digest()
