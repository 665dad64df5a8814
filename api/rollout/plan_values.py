"""Values of a rollout plan: the candidate, and what it would change."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field

from preshuffle.api.rollout.book_changes import EntryChange
from preshuffle.api.store import FieldChange
from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.frozen import Frozen, Version
from preshuffle.registry.base.limits import Name, at_most
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.input import Input
from preshuffle.registry.values.report import Verdict, rank

MAX_BOOKS: Final = 64
"""Overlays of a candidate, and AITER versions of its tables."""
MAX_FILES: Final = 256
"""Files of an overlay, or of one version's tables."""
Files = Annotated[dict[Name, str], at_most(MAX_FILES)]


class Candidate(Input):
    """Rollout under consideration; what is left out stays unchanged.

    Attributes:
        books: overlays, YAML texts by file name, later ones on top; they replace all current overlays.
        tables: kernel tables by AITER version, CSV texts by file name as in AITER's configs/.
        aiter: the version that every deployment would run.
        deployments: glob of names of the deployments to plan for.
    """

    books: Annotated[tuple[Files, ...], at_most(MAX_BOOKS)] | None = None
    tables: Annotated[dict[Version, Annotated[Files, Field(min_length=1)]], at_most(MAX_BOOKS)] | None = None
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


Change = Literal["worse", "better", "same"]


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
    becomes: Change = Field(description="whether its verdict gets worse")
    restart: bool = Field(
        description="false only where bytes, call and switches are known to stay, and under another AITER the kernels"
    )
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
    worse: int = Field(description="deployments whose worst verdict gets worse")
    better: int = Field(description="deployments whose worst verdict gets better")
    same: int = Field(description="deployments whose worst verdict stays")
    warnings: tuple[str, ...] = Field(default=(), description="what is not known of the candidate")
    items: tuple[PlanItem, ...]
    book: tuple[EntryChange, ...]


def change_of(before: Verdict, after: Verdict) -> Change:
    """Say whether a verdict gets worse."""
    if rank(after) == rank(before):
        return "same"
    return "worse" if rank(after) > rank(before) else "better"
