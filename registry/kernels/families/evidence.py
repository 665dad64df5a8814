"""Evidence of which layouts kernels read, by kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from preshuffle.registry.base.errors import PlacedError
from preshuffle.registry.base.frozen import Frozen, FrozenDict
from preshuffle.registry.base.words import Role
from preshuffle.registry.text import Document, packaged_document

EVIDENCE: Final = "kernel_evidence.yaml"
"""File of the packaged book; read when it is first needed, not when the book is loaded."""

Kind = Literal["derived", "bytes", "source", "engine"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""Kinds of evidence, the strongest first."""
READING: Final[frozenset[str]] = frozenset({"source", "engine"})
"""Kinds for which nothing was run."""

Text = Annotated[str, Field(min_length=1)]
Places = Annotated[tuple[Text, ...], Field(min_length=1)]
Build = Annotated[str, Field(pattern=r"^(\d+(\.\w+)+(\+\w+)?|[0-9a-f]{40})$")]
"""Version of the ``amd-aiter`` wheel, or a whole commit of AITER."""
_HEX: Final = 8
"""Digits of a checksum that are shown to people."""


def _as_text(value: Any) -> Any:
    """Take YAML's dates, which are no texts."""
    return value.isoformat() if isinstance(value, date) else value


def _day(value: str) -> str:
    date.fromisoformat(value)
    return value


Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_day), BeforeValidator(_as_text)]


class DerivedReads(Frozen):
    """Reads that were derived from the kernel itself (``preshuffle derive``).

    Attributes:
        kernel: the kernel that was run, by the stem of its file or its name.
        arch: the GPU that it is built for; the evidence counts for this one only.
        aiter: where it is from.
        of: what the checksum is of: the code object, or the last IR before LLVM.
        sha256: of that.
        date: of the derivation.
        compiled_by: what compiled it, with its version, where it is not as shipped.
        by_numbers: roles whose layout is told by numbers alone: right with it, wrong with every other.
    """

    kind: Literal["derived"]
    kernel: Text
    arch: Text
    aiter: Build
    of: Literal["code_object", "ir"] = "code_object"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    date: Day
    compiled_by: Text | None = None
    by_numbers: tuple[Role, ...] = ()

    @property
    def says(self) -> str:
        """The evidence in one line."""
        what = "IR" if self.of == "ir" else "code"
        of = f"{what} of {self.compiled_by}, " if self.compiled_by else ""
        text = f"kernel {self.kernel} of {build_text(self.aiter)} ({of}sha256 {self.sha256[:_HEX]}…, {self.date})"
        if not self.by_numbers:
            return f"derived from {text}"
        return f"derived from {text}; by numbers alone: {', '.join(self.by_numbers)}"


class FedBytes(Frozen):
    """Reads that are equal to what AITER's own functions feed the kernel.

    Attributes:
        functions: AITER's functions that lay the bytes out.
        aiter: whose functions were run.
        places: where AITER, or its test of the kernel, calls them.
    """

    kind: Literal["bytes"]
    functions: Places
    aiter: Build
    places: Places

    @property
    def says(self) -> str:
        """The evidence in one line."""
        names = ", ".join(name.rpartition(".")[2] for name in self.functions)
        return f"equal to the bytes of {names} ({build_text(self.aiter)})"


class ReadSource(Frozen):
    """Reads that somebody read in the kernel's source, or in its caller's."""

    kind: Literal["source"]
    places: Places

    @property
    def says(self) -> str:
        """The evidence in one line."""
        return "read in source, not run"


class EngineChoice(Frozen):
    """Reads that follow from how an engine lays the bytes out."""

    kind: Literal["engine"]
    engine: Text
    places: Places

    @property
    def says(self) -> str:
        """The evidence in one line."""
        return f"as {self.engine} lays it out, not run"


Known = Annotated[DerivedReads | FedBytes | ReadSource | EngineChoice, Field(discriminator="kind")]


class KernelEvidence(Frozen):
    """How it is known what a kernel family reads.

    Attributes:
        family: the kernel family.
        when: cases for which it counts, as in a family's variants; empty for all.
        reads: what was found, layout id by role; all that the family claims where nothing is given.
        known: how.
    """

    id: str
    family: str
    when: FrozenDict[str, tuple[str, ...]] = Field(default_factory=FrozenDict)
    reads: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    known: Known

    @property
    def says(self) -> str:
        """The evidence in one line."""
        return self.known.says

    @model_validator(mode="after")
    def _derivation_has_a_result(self) -> Self:
        if isinstance(self.known, DerivedReads) and not self.reads:
            raise PlacedError(("reads",), "what was derived is needed: a layout by role")
        return self


class EvidenceRecord(NamedTuple):
    """Unvalidated part of an evidence entry that answers need."""

    id: str
    when: Mapping[str, Sequence[str]]
    reads: Mapping[str, str]
    kind: Kind
    arch: str
    kernel: str

    @staticmethod
    def of(id: str, raw: Mapping[str, Any]) -> tuple[str, EvidenceRecord]:
        """Return an entry's family and record."""
        known = raw["known"]
        when, reads = raw.get("when", {}), raw.get("reads", {})
        return raw["family"], EvidenceRecord(
            id, when, reads, known["kind"], known.get("arch", ""), known.get("kernel", "")
        )


class EvidenceIndex:
    """Evidence by kernel family, the strongest first."""

    def __init__(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Take entries by id, as they are written."""
        self._by_family: dict[str, list[EvidenceRecord]] = {}
        for family, record in (EvidenceRecord.of(id, raw) for id, raw in entries.items()):
            self._by_family.setdefault(family, []).append(record)
        for records in self._by_family.values():
            records.sort(key=lambda record: KINDS.index(record.kind))

    def of(
        self, family: str, reads: Mapping[str, str], kernel: str, facts: Mapping[str, str], groups: Mapping[str, str]
    ) -> Iterator[tuple[str, EvidenceRecord]]:
        """Yield each role with the strongest evidence of its layout.

        Args:
            family: the kernel family.
            reads: layout by role, as the family claims.
            kernel: the kernel's name; of equal kinds evidence of that very kernel comes first, then what has more
                conditions.
            facts: of the call, its ``arch`` too.
            groups: of the kernel's name.
        """
        fitting = [record for record in self._by_family.get(family, ()) if _fits(record, facts, groups)]
        fitting.sort(key=lambda record: _order(record, kernel))
        for role, layout in reads.items():
            found = next((r for r in fitting if (r.reads.get(role) == layout if r.reads else True)), None)
            if found is not None:
                yield role, found


def _order(record: EvidenceRecord, kernel: str) -> tuple[int, bool, int]:
    """Return a sort key: kind, same kernel, number of conditions."""
    return KINDS.index(record.kind), not (record.kernel and record.kernel in kernel), -len(record.when)


def _fits(record: EvidenceRecord, facts: Mapping[str, str], groups: Mapping[str, str]) -> bool:
    if record.arch and record.arch != facts["arch"]:
        return False
    return all(
        (groups.get(name[5:], "") if name.startswith("name.") else facts.get(name, "")) in allowed
        for name, allowed in record.when.items()
    )


def build_text(build: str) -> str:
    """Return where a kernel is from, in words."""
    return f"AITER at {build[:12]}" if len(build) == 40 and "." not in build else f"amd-aiter {build}"


def packaged_evidence() -> tuple[Document, dict[str, dict[str, Any]]]:
    """Return the packaged book's evidence by id, as it is written."""
    document, _ = packaged_document(EVIDENCE)
    return document, document.value["kernel_evidence"]
