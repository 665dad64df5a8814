"""Environment variables of reports: only those that the book knows stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from preshuffle.api.fleet.deployments import ReplicaReport

if TYPE_CHECKING:
    from preshuffle.registry.loading import Book


def without_unknown_env(report: ReplicaReport, book: Book) -> tuple[ReplicaReport, int]:
    """Return a report without variables unknown to the book, and their number."""
    names = {name for group in report.groups for name in group.observation.query.env}
    if all(is_known_env(name, book) for name in names):
        return report, 0
    value, number = clean_report(report.model_dump(mode="json", exclude_unset=True), book)
    return ReplicaReport.model_validate(value), number


def is_known_env(name: str, book: Book) -> bool:
    """Return whether the book knows a variable, or nearly.

    A name that is one typing error away, or of a family of names, stays: the check says that nothing reads it.
    Everything else is none of our business, and may be a secret.
    """
    from preshuffle.registry.layer import why_unlisted  # loads AITER's dispatch, which a client never needs

    return name in book.flags or why_unlisted(name, book) is not None


def clean_report(value: Mapping[str, Any], book: Book) -> tuple[dict[str, Any], int]:
    """Return a report as JSON without unknown variables, and their number.

    A variable of several groups counts once.
    """
    dropped: set[str] = set()
    groups = []
    for group in value["groups"]:
        query = dict(group["observation"]["query"])
        env = query.pop("env", None) or {}
        known = {name: text for name, text in env.items() if is_known_env(name, book)}
        dropped |= env.keys() - known.keys()
        kept = {**query, "env": known} if known else query
        groups.append({**group, "observation": {**group["observation"], "query": kept}})
    return {**value, "groups": groups}, len(dropped)
