"""Lint of engine releases: packaged rules say since when they hold."""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.entries import Rule
from preshuffle.registry.loading import Book


def release_problems(book: Book, rule: Rule) -> Iterator[Problem]:
    """Yield what is wrong with the releases of a rule.

    A packaged rule needs ``since``, and no release newer than those that are known. An operator may know more.
    """
    place = book.places["rules", rule.id]
    condition = rule.conditions().get("engine")
    names = [str(name) for name in condition.values if name is not None] if condition else []
    if not names or not place.packaged:
        return
    if rule.since is None:
        yield place.problem(
            f"rule {rule.id!r} names an engine and no `since`: the first release whose code does so", "since"
        )
    for entry in filter(None, map(book.engines.get, names)):
        for field, release in (("since", rule.since), ("until", rule.until)):
            if release is not None and version_key(release) > version_key(entry.newest):
                message = f"{release} is newer than the newest known release of {entry.id}, {entry.newest}"
                yield place.problem(message, field)
