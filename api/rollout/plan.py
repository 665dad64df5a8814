"""Dry run of a rollout: what a candidate would change per deployment.

A candidate is another book, other kernel tables or another AITER version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Final

from sqlalchemy import select, tuple_

from preshuffle.api.fleet import ReplicaReport
from preshuffle.api.rollout.book_changes import compare_entries
from preshuffle.api.rollout.group_comparer import GroupComparer
from preshuffle.api.rollout.plan_values import Candidate, Plan, PlanItem, Where, change_of
from preshuffle.api.store import Store, conformance_store, entries_of, replicas
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import BookError, FieldProblem, QueryError
from preshuffle.registry.kernels import KernelTables, TableError
from preshuffle.registry.lint import lint
from preshuffle.registry.loading import load_book
from preshuffle.registry.values.report import Verdict, rank, worst

_PAGE: Final = 500
"""Rows per query."""


def candidate_registry(candidate: Candidate, current: Registry) -> Registry:
    """Return the registry that would answer after the rollout.

    Raises:
        BookError: the overlays do not load; names file, line and column.
        QueryError: kernel tables do not load.
    """
    book, tables = current.book, current.tables
    if candidate.books is not None:
        book = load_book(texts=candidate.books)
        problems = lint(book)
        if problems:
            raise BookError(problems)
    if candidate.tables is not None:
        try:
            uploads = [
                KernelTables.from_bytes({name: text.encode() for name, text in files.items()}, aiter=version)
                for version, files in candidate.tables.items()
            ]
        except TableError as error:
            raise QueryError([FieldProblem(error.source, error.message)]) from None
        tables = KernelTables.overlaid(tables, uploads)
    return Registry(book, tables)


def plan(store: Store, current: Registry, candidate: Candidate) -> Plan:
    """Compare decisions before and after, for every stored deployment.

    Raises:
        BookError: the overlays do not load.
        QueryError: kernel tables do not load.
        StoreError: the store does not answer.
    """
    after = candidate_registry(candidate, current)
    comparer = GroupComparer(current, after, candidate.aiter)
    found: dict[str, tuple[PlanItem, dict[tuple[str, str], list[int]]]] = {}
    worst_of: dict[str, tuple[Verdict, Verdict]] = {}
    changed = set()
    for name, replica, report in _reports(store, candidate.deployments):
        for group in report.groups:
            old, new, item = comparer.compare(group)
            before, now = worst_of.get(name, ("ok", "ok"))
            worst_of[name] = worst((before, old)), worst((now, new))
            if item is not None:
                changed.add(name)
                _, places = found.setdefault(item.model_dump_json(), (item, {}))
                places.setdefault((name, group.layers), []).append(replica)
    becomes = Counter(change_of(*verdicts) for verdicts in worst_of.values())
    items = [item.model_copy(update={"where": _where(places)}) for item, places in found.values()]
    return Plan(
        registry_before=current.digest,
        registry_after=after.digest,
        tables_before=current.tables.digest if current.tables else None,
        tables_after=after.tables.digest if after.tables else None,
        aiter=candidate.aiter,
        deployments=len(worst_of),
        unchanged=len(worst_of) - len(changed),
        worse=becomes["worse"],
        better=becomes["better"],
        same=becomes["same"],
        warnings=tuple(_warnings(store, candidate, after.digest)),
        items=tuple(sorted(items, key=_severity)),
        book=compare_entries(entries_of(current.book), entries_of(after.book)),
    )


def _warnings(store: Store, candidate: Candidate, registry_digest: str) -> Iterator[str]:
    """Yield what no conformance report says of the AITERs of a candidate."""
    versions = [*([candidate.aiter] if candidate.aiter else []), *(candidate.tables or {})]
    for version, report in conformance_store.find(store, versions).items():
        if report is None:
            yield f"nobody has held the book against AITER {version}: preshuffle conform --aiter WHEEL does it"
        elif report.verdict == "disagrees":
            yield f"AITER {version} contradicts the book: {report.summary} (GET /v1/conformance/{report.build})"
        elif report.verdict == "not known":
            yield f"nothing of AITER {version} could be held against the book: {report.summary}"
        elif report.registry_digest != registry_digest:
            yield f"AITER {version} was held against another book than the one planned: {report.summary}"


def plan_in_child(url: str, current: Registry, candidate: Candidate) -> Plan:
    """Run ``plan`` in a child process.

    Raises:
        BookError: the overlays do not load.
        QueryError: kernel tables do not load.
        StoreError: the store does not answer.
    """
    store = Store(url)
    try:
        return plan(store, current, candidate)
    finally:
        store.close()


def _where(places: Mapping[tuple[str, str], list[int]]) -> tuple[Where, ...]:
    return tuple(
        Where(deployment=name, layers=layers, replicas=tuple(numbers)) for (name, layers), numbers in places.items()
    )


def _severity(item: PlanItem) -> tuple[bool, int, bool, bool, int]:
    """Return a sort key: what gets worse, the worst first, then restarts, then most places."""
    worse = item.becomes == "worse"
    return (
        not worse,
        -rank(item.after.verdict) if worse else 0,
        not item.restart,
        not item.decision_changes,
        -len(item.where),
    )


def _reports(store: Store, glob: str) -> Iterator[tuple[str, int, ReplicaReport]]:
    last_key = ("", -1)
    while True:
        page = select(replicas.c.name, replicas.c.replica, replicas.c.report)
        page = page.where(tuple_(replicas.c.name, replicas.c.replica) > tuple_(*last_key))
        with store.transaction() as connection:
            rows = connection.execute(page.order_by(replicas.c.name, replicas.c.replica).limit(_PAGE)).all()
        if not rows:
            return
        last_key = (rows[-1].name, rows[-1].replica)
        for row in rows:
            if fnmatchcase(row.name, glob):
                yield row.name, row.replica, ReplicaReport.model_validate_json(row.report)
