"""Replicas that a book cannot tell apart: they told the same of their layers, and their names mean the same to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from preshuffle.registry.entries import Condition
from preshuffle.registry.loading import Book

_FIELD: Final = "deployment"
_MANY: Final = 64
"""Conditions on names: with more of them it is quicker to judge than to compare."""
_CONDITIONAL: Final = ("contracts", "known_bad", "pad_conventions")


class ReportEquivalence:
    """Says which reports one book judges alike."""

    def __init__(self, book: Book) -> None:
        """Collect what the book says of names of deployments."""
        self._conditions = tuple({condition.text: condition for condition in _conditions(book)}.values())

    def key(self, report: str) -> str:
        """Return what two reports (``ReplicaReport.canonical``) share if any judgement of one is the other's.

        Node, builds and times are no part of it, and a name only so far as the book has conditions that it meets.
        """
        groups = json.loads(report)["groups"]
        for group in groups:
            query = group["observation"]["query"]
            name = query.get(_FIELD)
            if name is not None and len(self._conditions) <= _MANY:
                query[_FIELD] = [condition.text for condition in self._conditions if condition.matches(name)]
        return json.dumps(groups)


def _conditions(book: Book) -> Iterator[Condition]:
    for rule in book.rules.values():
        if _FIELD in rule.conditions():
            yield rule.conditions()[_FIELD]
    for section in _CONDITIONAL:
        for entry in book.entries[section].values():
            yield from (_parsed(part[_FIELD]) for part in (entry.when, entry.unless) if _FIELD in part)


def _parsed(wanted: Any) -> Condition:
    return Condition.parse(_FIELD, wanted, "glob")
