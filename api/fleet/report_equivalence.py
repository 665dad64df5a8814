"""Cache key for reports that every judgement treats identically.

Two reports are equivalent under a book if their groups are equal and the same conditions of the book hold for their
deployment names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from preshuffle.registry.entries import Condition
    from preshuffle.registry.loading import Book

_FIELD: Final = "deployment"
_MAX_CONDITIONS: Final = 64
"""With more conditions on names it is faster to judge each report than to compare names."""
_CONDITIONAL_SECTIONS: Final = ("contracts", "known_bad", "pad_conventions")


class ReportEquivalence:
    """Equivalence of reports under one book."""

    def __init__(self, book: Book) -> None:
        """Collect the book's conditions on deployment names."""
        self._conditions = tuple({condition.text: condition for condition in _conditions(book)}.values())

    def key(self, report: str) -> str:
        """Return the cache key of a report's judgement.

        Node, builds and times are no part of it; of the deployment's name only which conditions of the book it meets.

        Args:
            report: JSON of ``ReplicaReport.canonical``.
        """
        groups = json.loads(report)["groups"]
        for group in groups:
            query = group["observation"]["query"]
            name = query.get(_FIELD)
            if name is not None and len(self._conditions) <= _MAX_CONDITIONS:
                query[_FIELD] = [condition.text for condition in self._conditions if condition.matches(name)]
        return json.dumps(groups)


def _conditions(book: Book) -> Iterator[Condition]:
    for rule in book.rules.values():
        if _FIELD in rule.conditions():
            yield rule.conditions()[_FIELD]
    for section in _CONDITIONAL_SECTIONS:
        for entry in book.entries[section].values():
            yield from (_parsed(clause[_FIELD]) for clause in (entry.when, *entry.unless) if _FIELD in clause)


def _parsed(pattern: Any) -> Condition:
    from preshuffle.registry.entries import Condition

    return Condition.parse(_FIELD, pattern, "glob")
