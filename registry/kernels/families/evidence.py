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

Owner = tuple[Literal["kernel_families", "backends"], str]
"""Section and id of what reads layouts."""
Kind = Literal["derived", "bytes", "source", "engine"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""Kinds of evidence, the strongest first."""
_STRENGTH: Final = (("derived", True), ("bytes", True), ("engine", True), ("source", False), ("engine", False))
"""Kinds and whether something was run, the strongest first."""

Text = Annotated[str, Field(min_length=1)]
Places = Annotated[tuple[Text, ...], Field(min_length=1)]
Build = Annotated[str, Field(pattern=r"^(\d+(\.\w+)+(\+\w+)?|[0-9a-f]{40})$")]
"""Version of the ``amd-aiter`` wheel, or a whole commit of AITER."""
_OF: Final = {"code_object": "code of", "ir": "IR of", "source": "source, run by"}
_RUN_FROM: Final = {"code_object": "", "ir": "IR, ", "source": "source, "}
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
        of: what the checksum is of: the code object, the last IR before LLVM, or the kernel's source file.
        sha256: of that.
        date: of the derivation.
        compiled_by: what compiled it, with its version, where it is not as shipped.
        by_numbers: roles whose layout is told by numbers alone: right with it, wrong with every other.
    """

    kind: Literal["derived"]
    kernel: Text
    arch: Text
    aiter: Build
    of: Literal["code_object", "ir", "source"] = "code_object"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    date: Day
    compiled_by: Text | None = None
    by_numbers: tuple[Role, ...] = ()

    @property
    def says(self) -> str:
        """The evidence in one line."""
        of = f"{_OF[self.of]} {self.compiled_by}, " if self.compiled_by else _RUN_FROM[self.of]
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


class ConversionRun(Frozen):
    """Run of an engine's own conversion (``preshuffle conform --engine``).

    Attributes:
        version: of the engine.
        aiter: the AITER that it had.
        layers: rows of ``layouts/conform/engines/tables/layers.yaml`` whose bytes were equal.
        date: of the run.
    """

    version: Text
    aiter: Build
    layers: Places
    date: Day


class EngineChoice(Frozen):
    """Reads that follow from how an engine lays the bytes out.

    Attributes:
        engine: its name.
        places: the code that does it.
        run: of that code; None where it was only read.
    """

    kind: Literal["engine"]
    engine: Text
    places: Places
    run: ConversionRun | None = None

    @property
    def says(self) -> str:
        """The evidence in one line."""
        if self.run is None:
            return f"as {self.engine} lays it out, not run"
        layers = ", ".join(self.run.layers)
        return f"as {self.engine} {self.run.version} lays it out, run on {layers} and compared ({self.run.date})"


Known = Annotated[DerivedReads | FedBytes | ReadSource | EngineChoice, Field(discriminator="kind")]


class KernelEvidence(Frozen):
    """How it is known what a kernel family, or a backend, reads.

    Attributes:
        family: the kernel family; None for a backend.
        backend: the backend with kernels of its own; None for a family.
        when: cases for which it counts, as in a family's variants; for a backend its GPU, weights and activation; empty
            for all.
        reads: what was found, layout id by role; all that is claimed where nothing is given.
        known: how.
    """

    id: str
    family: str | None = None
    backend: str | None = None
    when: FrozenDict[str, tuple[str, ...]] = Field(default_factory=FrozenDict)
    reads: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    known: Known

    @property
    def says(self) -> str:
        """The evidence in one line."""
        return self.known.says

    @property
    def by_reading(self) -> bool:
        """Whether nothing was run for it."""
        return isinstance(self.known, ReadSource) or (isinstance(self.known, EngineChoice) and self.known.run is None)

    @property
    def strength(self) -> int:
        """Sort key, the strongest first."""
        return strength(self.known.kind, not self.by_reading)

    @property
    def owner(self) -> Owner:
        """Section and id of what reads."""
        return ("backends", self.backend) if self.backend is not None else ("kernel_families", self.family or "")

    @model_validator(mode="after")
    def _is_of_one_reader(self) -> Self:
        if (self.family is None) == (self.backend is None):
            raise PlacedError((), "either a family or a backend is needed")
        return self

    @model_validator(mode="after")
    def _run_has_a_result(self) -> Self:
        if isinstance(self.known, DerivedReads) and not self.reads:
            raise PlacedError(("reads",), "what was derived is needed: a layout by role")
        if isinstance(self.known, EngineChoice) and self.known.run is not None and not self.reads:
            raise PlacedError(("reads",), "what the engine laid out is needed: a layout by role")
        return self


def strength(kind: Kind, ran: bool) -> int:
    """Return a sort key of evidence, the strongest first.

    Args:
        kind: of the evidence.
        ran: whether something was run for it: bytes that an engine's code laid out count more than what was read.
    """
    return _STRENGTH.index((kind, ran))


class EvidenceRecord(NamedTuple):
    """Unvalidated part of an evidence entry that answers need."""

    id: str
    when: Mapping[str, Sequence[str]]
    reads: Mapping[str, str]
    kind: Kind
    strength: int
    arch: str
    kernel: str

    @staticmethod
    def of(id: str, raw: Mapping[str, Any]) -> tuple[Owner, EvidenceRecord]:
        """Return what an entry is about, and its record."""
        known = raw["known"]
        when, reads = raw.get("when", {}), raw.get("reads", {})
        backend = raw.get("backend")
        owner: Owner = ("backends", backend) if backend is not None else ("kernel_families", raw["family"])
        ran = known["kind"] in ("derived", "bytes") or bool(known.get("run"))
        order = strength(known["kind"], ran)
        record = EvidenceRecord(id, when, reads, known["kind"], order, known.get("arch", ""), known.get("kernel", ""))
        return owner, record


class EvidenceIndex:
    """Evidence by kernel family and backend, the strongest first."""

    def __init__(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Take entries by id, as they are written."""
        self._by_owner: dict[Owner, list[EvidenceRecord]] = {}
        for owner, record in (EvidenceRecord.of(id, raw) for id, raw in entries.items()):
            self._by_owner.setdefault(owner, []).append(record)
        for records in self._by_owner.values():
            records.sort(key=lambda record: record.strength)

    def of(
        self, owner: Owner, reads: Mapping[str, str], kernel: str, facts: Mapping[str, str], groups: Mapping[str, str]
    ) -> Iterator[tuple[str, EvidenceRecord]]:
        """Yield each role with the strongest evidence of its layout.

        Args:
            owner: the kernel family, or the backend.
            reads: layout by role, as it claims.
            kernel: the kernel's name; of equal kinds evidence of that very kernel comes first, then what has more
                conditions.
            facts: of the call, its ``arch`` too.
            groups: of the kernel's name.
        """
        fitting = [record for record in self._by_owner.get(owner, ()) if _fits(record, facts, groups)]
        fitting.sort(key=lambda record: _order(record, kernel))
        for role, layout in reads.items():
            found = next((r for r in fitting if (r.reads.get(role) == layout if r.reads else True)), None)
            if found is not None:
                yield role, found


def _order(record: EvidenceRecord, kernel: str) -> tuple[int, bool, int]:
    """Return a sort key: strength, same kernel, number of conditions."""
    return record.strength, not (record.kernel and record.kernel in kernel), -len(record.when)


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
