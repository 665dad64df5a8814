"""Cache of one resource's responses, by exact query string or body."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, TypeVar

from preshuffle.api.answers.answers import Answer, Answers
from preshuffle.api.web import CachedResponse
from preshuffle.registry import Registry

_MAX_ENTRIES: Final = 1024
_MAX_KEY: Final = 2048
"""Bytes of a query string or body; what is longer is not cached."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Entries:
    """Responses of one registry."""

    registry: Registry
    by_query: OrderedDict[bytes, CachedResponse] = field(default_factory=OrderedDict)
    by_body: OrderedDict[bytes, Answer] = field(default_factory=OrderedDict)


class ResponseCache:
    """Most recent responses of the current registry. Event loop only."""

    def __init__(self, answers: Answers, capacity: int = _MAX_ENTRIES) -> None:
        """Start empty; at most ``capacity`` responses of each kind are cached."""
        self._answers = answers
        self._capacity = capacity
        self._entries = _Entries(answers.registry)

    def find(self, query: bytes) -> CachedResponse | None:
        """Return the cached response to a query string, or None."""
        return self._current().by_query.get(query)

    def find_posted(self, body: bytes) -> Answer | None:
        """Return the cached answer to a body, or None."""
        return self._current().by_body.get(body)

    def store(self, query: bytes, response: CachedResponse, registry: Registry) -> None:
        """Cache a response, unless its registry has been replaced since."""
        entries = self._current()
        if entries.registry is registry:
            _add(entries.by_query, query, response, self._capacity)

    def store_posted(self, body: bytes, answer: Answer, registry: Registry) -> None:
        """Cache an answer, unless its registry has been replaced since."""
        entries = self._current()
        if entries.registry is registry and answer.problem is None:
            _add(entries.by_body, body, answer, self._capacity)

    def _current(self) -> _Entries:
        if self._entries.registry is not self._answers.registry:
            self._entries = _Entries(self._answers.registry)
        return self._entries


def etag_of(body: bytes) -> str:
    """Return the ETag of a decision's JSON."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


def _add(entries: OrderedDict[bytes, T], key: bytes, value: T, capacity: int) -> None:
    if len(key) <= _MAX_KEY:
        entries[key] = value
        while len(entries) > capacity:
            entries.popitem(last=False)
