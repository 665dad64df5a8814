"""Report of ``preshuffle conform``: the book held against a real AITER."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from preshuffle.registry.base.frozen import Frozen, FrozenDict
from preshuffle.registry.values.input import Input

Claim = Literal["features", "bytes", "kernel_choices", "tables", "derived", "triton", "probe", "engine"]

CLAIMS: Final[dict[Claim, tuple[str, str]]] = {
    "features": ("features", "features of the version table, looked for in the sources"),
    "bytes": ("byte cases", "layouts against the bytes of AITER's own functions, padding included"),
    "kernel_choices": ("kernel choices", "predicted kernels against AITER's own dispatch"),
    "tables": ("table names", "kernel names and columns of the tuned tables, known to a family"),
    "derived": ("kernels derived", "layouts that prebuilt kernels were found to read"),
    "triton": ("Triton runs", "AITER's Triton MoE kernels on our bytes, against float64"),
    "probe": ("probes", "golden layers through AITER's fused_moe on a GPU"),
    "engine": ("engine layers", "an engine's own conversion of small layers"),
}
"""Kinds of claims: what one case is called, and what it compares."""

MAX_DISAGREEMENTS: Final = 200
MAX_NOT_RUN: Final = 200
BUILD_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._!+-]{0,127}$"
Text = Annotated[str, Field(max_length=2000)]
Line = Annotated[str, Field(max_length=400)]
Count = Annotated[int, Field(ge=0, le=1 << 40)]
Sha256 = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


class AiterBuild(Frozen):
    """An AITER that was looked at.

    Attributes:
        id: version where it is known, with the commit where that is; else ``g<commit>``, else ``src-<digest>``.
        version: as its metadata has it; None for a checkout.
        supposed: the version whose behaviour it was compared with, where it does not say its own.
        commit: of a checkout.
        digest: of its Python sources and tuned tables.
        place: how it was given.
    """

    id: Annotated[str, Field(pattern=BUILD_PATTERN)]
    version: Line | None = None
    supposed: Line | None = None
    commit: Annotated[str, Field(pattern="^[0-9a-f]{7,64}$")] | None = None
    digest: Sha256
    place: Literal["installed", "folder", "wheel"]


class Disagreement(Frozen):
    """A claim of the book that real code contradicts.

    Attributes:
        entry: section and id of the book's entry, with the field.
        case: what was tried.
        here: what the book says.
        there: what the code does.
        source: ``file:line`` of the code, relative to its root.
    """

    entry: Line
    case: Text
    here: Text
    there: Text
    source: Line | None = None


class NotRun(Frozen):
    """Something that was not tried, and why."""

    what: Text
    why: Text


class ClaimResult(Frozen):
    """What came of one kind of claims.

    Attributes:
        tried: cases that were run.
        agreed: of them.
        disagreements: the first ones.
        not_run: parts that were left out.
        notes: what limits the answer without being a disagreement.
        seconds: how long it took.
    """

    tried: Count
    agreed: Count
    disagreements: Annotated[tuple[Disagreement, ...], Field(max_length=MAX_DISAGREEMENTS)] = ()
    not_run: Annotated[tuple[NotRun, ...], Field(max_length=MAX_NOT_RUN)] = ()
    notes: Annotated[tuple[Text, ...], Field(max_length=50)] = ()
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.agreed > self.tried:
            raise ValueError(f"{self.agreed} of {self.tried} cases agree")
        if len(self.disagreements) > self.tried - self.agreed:
            raise ValueError(f"{len(self.disagreements)} disagreements, but {self.agreed} of {self.tried} cases agree")
        return self

    @property
    def disagreed(self) -> int:
        """Return the number of cases that disagree."""
        return self.tried - self.agreed


class ConformanceContent(Input):
    """The book held against one AITER build, claim by claim.

    Attributes:
        preshuffle: version of this package.
        registry_digest: of the book.
        machine: operating system, Python, torch, Triton and GPU that it was made with.
        engine: the engine whose conversions were run, with its version.
        claims: what came of each kind; a kind that is missing was not asked for.
        complete: whether every case was run, instead of a sample.
    """

    format: Literal[1] = 1
    preshuffle: Line
    registry_digest: Sha256
    aiter: AiterBuild
    engine: Line | None = None
    machine: Annotated[FrozenDict[str, Line], Field(max_length=20)] = Field(default_factory=FrozenDict)
    claims: Annotated[FrozenDict[Claim, ClaimResult], Field(min_length=1)]
    complete: bool = False


class ConformanceReport(ConformanceContent):
    """Content with its digest; a report with another one is refused.

    Attributes:
        digest: of the content, but for the seconds.
    """

    digest: Sha256

    @model_validator(mode="after")
    def _digest_is_right(self) -> Self:
        expected = digest_of_report(self.model_dump(mode="json"))
        if self.digest != expected:
            raise ValueError(f"digest is {self.digest}, but the content gives {expected}")
        return self

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """Return a report with its digest."""
        content = ConformanceContent.model_validate(fields).model_dump(mode="json")
        return cls.model_validate({**content, "digest": digest_of_report(content)})

    @property
    def verdict(self) -> Literal["agrees", "disagrees", "not known"]:
        """Return whether all cases agree; not known where none ran."""
        if not any(result.tried for result in self.claims.values()):
            return "not known"
        return "disagrees" if any(result.disagreed for result in self.claims.values()) else "agrees"

    def summary(self) -> str:
        """Return the counts in one line, e.g. ``185 of 185 byte cases``."""
        parts = [self._counts(kind, result) for kind, result in self.claims.items() if result.tried]
        return ", ".join(parts) or "nothing could be run here"

    def _counts(self, kind: Claim, result: ClaimResult) -> str:
        counts = f"{result.agreed:,} of {result.tried:,} {CLAIMS[kind][0]}"
        return f"{counts} of {self.engine}" if kind == "engine" and self.engine else counts


def digest_of_report(content: dict[str, Any]) -> str:
    """Return the digest of a report's JSON, without its seconds and digest."""
    claims = {kind: {**claim, "seconds": None} for kind, claim in content["claims"].items()}
    text = json.dumps({**content, "claims": claims, "digest": None}, sort_keys=True, ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
