"""What another book, other kernel tables or another AITER would change for the deployments that are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError
from sqlalchemy import select, tuple_

from preshuffle.api.fleet import Group, ReplicaReport
from preshuffle.api.rollout.book_changes import EntryChange, compare_entries
from preshuffle.api.store import FieldChange, Store, differences, entries_of, replicas
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import BookError, FieldProblem, PreshuffleError, QueryError
from preshuffle.registry.base.frozen import Frozen, Version
from preshuffle.registry.kernels import KernelTables, TableError
from preshuffle.registry.lint import lint
from preshuffle.registry.loading import load_book
from preshuffle.registry.resolve import same_bytes
from preshuffle.registry.text import field_problems
from preshuffle.registry.values.decision import Decision, TensorDecision
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.query import Query
from preshuffle.registry.values.report import Report, Verdict

_PAGE: Final = 500
_BYTES: Final = frozenset(TensorDecision.model_fields) - {"layout", "is_shuffled"}


class Candidate(Frozen):
    """What might be rolled out. What is left out stays as it is.

    Attributes:
        books: overlays, YAML texts by file name, later ones on top; they take the place of all that are used now.
        tables: kernel tables by AITER version, CSV texts by file name as in AITER's configs/.
        aiter: the version that every deployment would run.
        deployments: glob of the deployments that are asked about.
    """

    books: tuple[dict[str, str], ...] | None = None
    tables: dict[Version, Annotated[dict[str, str], Field(min_length=1)]] | None = None
    aiter: Version | None = None
    deployments: Annotated[str, Field(min_length=1, max_length=128)] = "*"

    @classmethod
    def parse(cls, value: Any) -> Candidate:
        """Validate a mapping.

        Raises:
            QueryError: names each wrong field, what was found and what is valid.
        """
        try:
            candidate = cls.model_validate(value)
        except ValidationError as error:
            raise QueryError([problem for _, problem in field_problems(error)]) from None
        if candidate.books is None and candidate.tables is None and candidate.aiter is None:
            raise QueryError([FieldProblem("(whole)", "nothing would change", ("books", "tables", "aiter"))])
        return candidate


class Where(Frozen):
    """Layers of some replicas of a deployment."""

    deployment: str
    replicas: tuple[int, ...]
    layers: str


class Side(Frozen):
    """What is decided, or why nothing is."""

    recipe: str | None = None
    rule: str | None = None
    reason: str = Field(description="of the decision; of a query that no recipe answers, why none does")
    decision_digest: str | None = None
    verdict: Verdict = Field(description="of what the deployment told, under this book, these tables and this AITER")


class KernelShift(Frozen):
    """Another kernel at one token count."""

    tokens: int
    before: str
    after: str


class PlanItem(Frozen):
    """One change, and everywhere it would happen."""

    where: tuple[Where, ...]
    model: str
    arch: str
    before: Side
    after: Side
    decision_changes: bool
    bytes_change: bool | None = Field(
        description="weights, scales or biases lie otherwise; null: one side is undecided"
    )
    restart: bool = Field(description="the engine must load again: other bytes, another call or other switches")
    changes: tuple[FieldChange, ...] = Field(description="of tensors, call and env, field by field")
    kernels: tuple[KernelShift, ...]
    new_findings: tuple[Finding, ...] = Field(description="that the check has now and would not have had before")


class Plan(Frozen):
    """What would change, what concerns most deployments first within what is gravest."""

    registry_before: str
    registry_after: str
    tables_before: str | None
    tables_after: str | None
    aiter: str | None
    deployments: int = Field(description="that were looked at")
    unchanged: int = Field(description="of them")
    items: tuple[PlanItem, ...]
    book: tuple[EntryChange, ...]


def candidate_registry(candidate: Candidate, now: Registry) -> Registry:
    """Return the registry that would answer.

    Raises:
        BookError: the overlays do not load; names file, line and column.
        QueryError: kernel tables do not load.
    """
    book, tables = now.book, now.tables
    if candidate.books is not None:
        book = load_book(texts=candidate.books)
        problems = lint(book)
        if problems:
            raise BookError(problems)
    if candidate.tables is not None:
        try:
            on_top = [
                KernelTables.from_bytes({name: text.encode() for name, text in files.items()}, aiter=version)
                for version, files in candidate.tables.items()
            ]
        except TableError as error:
            raise QueryError([FieldProblem(error.source, error.message)]) from None
        tables = KernelTables.overlaid(tables, on_top)
    return Registry(book, tables)


def plan(store: Store, now: Registry, candidate: Candidate) -> Plan:
    """Compare what is decided now with what would be, for every deployment.

    Raises:
        BookError: the overlays do not load.
        QueryError: kernel tables do not load.
        StoreError: the store does not answer.
    """
    then = candidate_registry(candidate, now)
    comparer = _Comparer(now, then, candidate.aiter)
    found: dict[str, tuple[PlanItem, dict[tuple[str, str], list[int]]]] = {}
    names, touched = set(), set()
    for name, replica, report in _reports(store, candidate.deployments):
        names.add(name)
        for group in report.groups:
            item = comparer.compare(group)
            if item is not None:
                touched.add(name)
                key = item.model_dump_json()
                found.setdefault(key, (item, {}))[1].setdefault((name, group.layers), []).append(replica)
    items = [
        item.model_copy(
            update={
                "where": tuple(
                    Where(deployment=name, layers=layers, replicas=tuple(numbers))
                    for (name, layers), numbers in places.items()
                )
            }
        )
        for item, places in found.values()
    ]
    return Plan(
        registry_before=now.digest,
        registry_after=then.digest,
        tables_before=now.tables.digest if now.tables else None,
        tables_after=then.tables.digest if then.tables else None,
        aiter=candidate.aiter,
        deployments=len(names),
        unchanged=len(names - touched),
        items=tuple(sorted(items, key=_gravity)),
        book=compare_entries(entries_of(now.book), entries_of(then.book)),
    )


def plan_in_child(url: str, now: Registry, candidate: Candidate) -> Plan:
    """Plan in a process of its own.

    Raises:
        BookError: the overlays do not load.
        QueryError: kernel tables do not load.
        StoreError: the store does not answer.
    """
    store = Store(url)
    try:
        return plan(store, now, candidate)
    finally:
        store.close()


def _gravity(item: PlanItem) -> tuple[bool, bool, bool, int]:
    breaks = item.after.verdict in ("mismatch", "unsupported") and item.after.verdict != item.before.verdict
    return not breaks, not item.restart, not item.decision_changes, -len(item.where)


def _reports(store: Store, glob: str) -> Iterator[tuple[str, int, ReplicaReport]]:
    place = ("", -1)
    while True:
        further = select(replicas.c.name, replicas.c.replica, replicas.c.report)
        further = further.where(tuple_(replicas.c.name, replicas.c.replica) > tuple_(*place))
        with store.transaction() as connection:
            rows = connection.execute(further.order_by(replicas.c.name, replicas.c.replica).limit(_PAGE)).all()
        if not rows:
            return
        place = (rows[-1].name, rows[-1].replica)
        for row in rows:
            if fnmatchcase(row.name, glob):
                yield row.name, row.replica, ReplicaReport.model_validate_json(row.report)


@dataclass
class _Comparer:
    """Compares; groups that told the same are compared once."""

    now: Registry
    then: Registry
    aiter: str | None
    _known: dict[str, PlanItem | None] = field(default_factory=dict)

    def compare(self, group: Group) -> PlanItem | None:
        key = group.observation.model_dump_json(exclude_unset=True)
        if key not in self._known:
            self._known[key] = self._compare(group.observation)
        return self._known[key]

    def _compare(self, told: Observation) -> PlanItem | None:
        would = told
        if self.aiter is not None:
            fields = told.query.model_dump(exclude_unset=True, exclude={"aiter_features"})  # those of the AITER before
            query = Query.model_validate({**fields, "aiter": self.aiter})
            would = told.model_copy(update={"query": query})
        before, after = _decide(self.now, told.query), _decide(self.then, would.query)
        old, new = self.now.check(told), self.then.check(would)
        item = PlanItem(
            where=(),
            model=told.query.model,
            arch=told.query.arch,
            before=_side(before, old),
            after=_side(after, new),
            decision_changes=_digest(before) != _digest(after),
            bytes_change=_bytes_change(self.then, before, after),
            restart=None not in (_digest(before), _digest(after)) and _digest(before) != _digest(after),
            changes=tuple(differences(_told(before), _told(after))),
            kernels=tuple(_kernels(before, after)),
            new_findings=tuple(finding for finding in new.findings if finding not in old.findings),
        )
        same = (item.before.recipe, old.verdict) == (item.after.recipe, new.verdict)
        nothing = same and not (item.decision_changes or item.kernels or item.new_findings)
        return None if nothing else item


def _decide(registry: Registry, query: Query) -> Decision | str:
    """Return the decision, or why there is none."""
    try:
        return registry.resolve(query)
    except PreshuffleError as error:
        return str(error).splitlines()[0]


def _digest(decided: Decision | str) -> str | None:
    return decided.decision_digest if isinstance(decided, Decision) else None


def _side(decided: Decision | str, report: Report) -> Side:
    if isinstance(decided, str):
        return Side(reason=decided, verdict=report.verdict)
    return Side(
        recipe=decided.recipe,
        rule=decided.rule,
        reason=decided.reason,
        decision_digest=decided.decision_digest,
        verdict=report.verdict,
    )


def _told(decided: Decision | str) -> dict[str, Any]:
    """What the decision digest covers."""
    if isinstance(decided, str):
        return {}
    return decided.model_dump(mode="json", include={"recipe", "tensors", "call", "env"})


def _bytes_change(registry: Registry, before: Decision | str, after: Decision | str) -> bool | None:
    """Whether any tensor lies otherwise. Two names of one layout, and two layouts that are the same bytes, do not."""
    if isinstance(before, str) or isinstance(after, str):
        return None
    if before.tensors.keys() != after.tensors.keys():
        return True
    for role, old in before.tensors.items():
        new = after.tensors[role]
        if any(getattr(old, name) != getattr(new, name) for name in _BYTES):
            return True
        known = {old.layout, new.layout} <= registry.book.known_layouts
        if not (known and same_bytes(registry.book, old.layout, new.layout, new.physical_shape)):
            return True
    return False


def _kernels(before: Decision | str, after: Decision | str) -> Iterator[KernelShift]:
    if isinstance(before, str) or isinstance(after, str):
        return
    old: Mapping[int, str] = {bucket.tokens: _kernel_words(bucket) for bucket in before.kernels}
    for bucket in after.kernels:
        words = _kernel_words(bucket)
        if old.get(bucket.tokens, words) != words:
            yield KernelShift(tokens=bucket.tokens, before=old[bucket.tokens], after=words)


def _kernel_words(bucket: Any) -> str:
    """Name both stages and what they read; what AITER raises instead."""
    if bucket.error:
        return f"raises {bucket.error}"
    stages = [stage.kernel or stage.func for stage in (bucket.stage1, bucket.stage2) if stage is not None]
    tuned = {True: ", tuned", False: ", untuned", None: ""}[bucket.tuned]
    return f"{' then '.join(stages)} on {bucket.activation_dtype}{tuned}"
