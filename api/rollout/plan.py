"""Dry run of a rollout: what a candidate would change per deployment.

A candidate is another book, other kernel tables or another AITER version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Self

from pydantic import Field
from sqlalchemy import select, tuple_

from preshuffle.api.fleet import Group, ReplicaReport
from preshuffle.api.rollout.book_changes import EntryChange, compare_entries
from preshuffle.api.store import FieldChange, Store, differences, entries_of, replicas
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import BookError, FieldProblem, PreshuffleError, QueryError
from preshuffle.registry.base.frozen import Frozen, Version
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.kernels import KernelTables, TableError
from preshuffle.registry.layer import same_bytes
from preshuffle.registry.lint import lint
from preshuffle.registry.loading import load_book
from preshuffle.registry.values.decision import Decision, TensorDecision
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.input import Input
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.query import Query
from preshuffle.registry.values.report import Report, Verdict

_PAGE: Final = 500
"""Rows per query."""
_CACHED_ITEMS: Final = 10_000
_BYTE_FIELDS: Final = frozenset(TensorDecision.model_fields) - {"layout", "is_shuffled"}


class Candidate(Input):
    """Rollout under consideration; what is left out stays unchanged.

    Attributes:
        books: overlays, YAML texts by file name, later ones on top; they replace all current overlays.
        tables: kernel tables by AITER version, CSV texts by file name as in AITER's configs/.
        aiter: the version that every deployment would run.
        deployments: glob of names of the deployments to plan for.
    """

    books: tuple[dict[str, str], ...] | None = None
    tables: dict[Version, Annotated[dict[str, str], Field(min_length=1)]] | None = None
    aiter: Version | None = None
    deployments: Annotated[str, Field(min_length=1, max_length=128)] = "*"

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Validate a mapping.

        Raises:
            QueryError: names each wrong field, what was found and what is valid.
        """
        candidate = super().parse(value)
        if candidate.books is None and candidate.tables is None and candidate.aiter is None:
            raise QueryError([FieldProblem("(whole)", "nothing would change", ("books", "tables", "aiter"))])
        return candidate


class Where(Frozen):
    """Layers of some replicas of a deployment."""

    deployment: str
    replicas: tuple[int, ...]
    layers: str


class Side(Frozen):
    """Decision before or after, or why there is none."""

    recipe: str | None = None
    rule: str | None = None
    reason: str = Field(description="of the decision; of a query that no recipe answers, why none does")
    decision_digest: str | None = None
    verdict: Verdict = Field(description="of the deployment's report, under this book, these tables and this AITER")


class KernelShift(Frozen):
    """Kernels at one token count that would change."""

    tokens: int
    before: str
    after: str


class PlanItem(Frozen):
    """One change, with all places where it would happen."""

    where: tuple[Where, ...]
    model: str
    arch: str
    before: Side
    after: Side
    decision_changes: bool
    bytes_change: bool | None = Field(
        description="weights, scales or biases would have other bytes; null: one side is undecided"
    )
    restart: bool = Field(description="the engine must load again: other bytes, another call or other switches")
    changes: tuple[FieldChange, ...] = Field(description="of tensors, call and env, field by field")
    kernels: tuple[KernelShift, ...]
    new_findings: tuple[Finding, ...] = Field(description="of the check after the rollout that it does not have before")


class Plan(Frozen):
    """Changes of a candidate, the most severe first, then the most frequent."""

    registry_before: str
    registry_after: str
    tables_before: str | None
    tables_after: str | None
    aiter: str | None
    deployments: int = Field(description="that were compared")
    unchanged: int = Field(description="of them")
    items: tuple[PlanItem, ...]
    book: tuple[EntryChange, ...]


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
    comparer = _Comparer(current, after, candidate.aiter)
    found: dict[str, tuple[PlanItem, dict[tuple[str, str], list[int]]]] = {}
    names, changed = set(), set()
    for name, replica, report in _reports(store, candidate.deployments):
        names.add(name)
        for group in report.groups:
            item = comparer.compare(group)
            if item is not None:
                changed.add(name)
                _, places = found.setdefault(item.model_dump_json(), (item, {}))
                places.setdefault((name, group.layers), []).append(replica)
    items = [item.model_copy(update={"where": _where(places)}) for item, places in found.values()]
    return Plan(
        registry_before=current.digest,
        registry_after=after.digest,
        tables_before=current.tables.digest if current.tables else None,
        tables_after=after.tables.digest if after.tables else None,
        aiter=candidate.aiter,
        deployments=len(names),
        unchanged=len(names - changed),
        items=tuple(sorted(items, key=_severity)),
        book=compare_entries(entries_of(current.book), entries_of(after.book)),
    )


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


def _severity(item: PlanItem) -> tuple[bool, bool, bool, int]:
    """Return a sort key: breaking changes, then restarts, then most places."""
    breaks = item.after.verdict in ("mismatch", "unsupported") and item.after.verdict != item.before.verdict
    return not breaks, not item.restart, not item.decision_changes, -len(item.where)


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


@dataclass
class _Comparer:
    """Compares groups under two registries; equal observations are compared once."""

    before: Registry
    after: Registry
    aiter: str | None
    _items: Memo = field(default_factory=lambda: Memo(_CACHED_ITEMS))

    def compare(self, group: Group) -> PlanItem | None:
        key = group.observation.model_dump_json(exclude_unset=True)
        return self._items.get("item", key, lambda: self._compare(group.observation))

    def _compare(self, observation: Observation) -> PlanItem | None:
        expected = self._with_aiter(observation)
        before, after = _resolve(self.before, observation.query), _resolve(self.after, expected.query)
        old, new = self.before.check(observation), self.after.check(expected)
        item = PlanItem(
            where=(),
            model=observation.query.model,
            arch=self.after.book.arch_names.gfx(observation.query.arch),
            before=_side(before, old),
            after=_side(after, new),
            decision_changes=_digest(before) != _digest(after),
            bytes_change=_bytes_change(self.after, before, after),
            restart=None not in (_digest(before), _digest(after)) and _digest(before) != _digest(after),
            changes=tuple(differences(_digested_fields(before), _digested_fields(after))),
            kernels=tuple(_kernels(before, after)),
            new_findings=tuple(finding for finding in new.findings if finding not in old.findings),
        )
        same = (item.before.recipe, old.verdict) == (item.after.recipe, new.verdict)
        unchanged = same and not (item.decision_changes or item.kernels or item.new_findings)
        return None if unchanged else item

    def _with_aiter(self, observation: Observation) -> Observation:
        """Return the observation as it would be under the candidate's AITER version."""
        if self.aiter is None:
            return observation
        # probed features belong to the AITER that ran before
        fields = observation.query.model_dump(exclude_unset=True, exclude={"aiter_features"})
        query = Query.model_validate({**fields, "aiter": self.aiter})
        return observation.model_copy(update={"query": query})


def _resolve(registry: Registry, query: Query) -> Decision | str:
    """Return the decision, or why there is none."""
    try:
        return registry.resolve(query)
    except PreshuffleError as error:
        return str(error).splitlines()[0]


def _digest(outcome: Decision | str) -> str | None:
    return outcome.decision_digest if isinstance(outcome, Decision) else None


def _side(outcome: Decision | str, report: Report) -> Side:
    if isinstance(outcome, str):
        return Side(reason=outcome, verdict=report.verdict)
    return Side(
        recipe=outcome.recipe,
        rule=outcome.rule,
        reason=outcome.reason,
        decision_digest=outcome.decision_digest,
        verdict=report.verdict,
    )


def _digested_fields(outcome: Decision | str) -> dict[str, Any]:
    """Return the fields that the decision digest covers; none without a decision."""
    if isinstance(outcome, str):
        return {}
    return outcome.model_dump(mode="json", include={"recipe", "tensors", "call", "env"})


def _bytes_change(registry: Registry, before: Decision | str, after: Decision | str) -> bool | None:
    """Whether any tensor's bytes change, whatever its layouts are called."""
    if isinstance(before, str) or isinstance(after, str):
        return None
    if before.tensors.keys() != after.tensors.keys():
        return True
    for role, old in before.tensors.items():
        new = after.tensors[role]
        if any(getattr(old, name) != getattr(new, name) for name in _BYTE_FIELDS):
            return True
        known = {old.layout, new.layout} <= registry.book.known_layouts
        if not (known and same_bytes(registry.book, old.layout, new.layout, new.physical_shape)):
            return True
    return False


def _kernels(before: Decision | str, after: Decision | str) -> Iterator[KernelShift]:
    if isinstance(before, str) or isinstance(after, str):
        return
    old: Mapping[int, str] = {bucket.tokens: _describe_kernels(bucket) for bucket in before.kernels}
    for bucket in after.kernels:
        new = _describe_kernels(bucket)
        if old.get(bucket.tokens, new) != new:
            yield KernelShift(tokens=bucket.tokens, before=old[bucket.tokens], after=new)


def _describe_kernels(bucket: Any) -> str:
    """Describe both stages and the activation dtype, or AITER's error."""
    if bucket.error:
        return f"raises {bucket.error}"
    stages = [stage.kernel or stage.func for stage in (bucket.stage1, bucket.stage2) if stage is not None]
    tuned = {True: ", tuned", False: ", untuned", None: ""}[bucket.tuned]
    return f"{' then '.join(stages)} on {bucket.activation_dtype}{tuned}"
