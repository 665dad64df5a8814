"""Lint of kernel evidence: references, contradictions, missing entries."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Final, get_args

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.linear_pattern import linear_pattern
from preshuffle.registry.base.suggestions import near
from preshuffle.registry.base.words import ROLES, CallDtype, Dtype, QuantType
from preshuffle.registry.kernels import (
    KINDS,
    DerivedReads,
    Family,
    KernelEvidence,
    Kind,
    LayoutReader,
    ReaderEvidence,
    RuntimeFacts,
    readers_of,
)
from preshuffle.registry.loading import Book, Place

SECTION: Final = "kernel_evidence"
_ROLES: Final = {"1": ("w13_",), "2": ("w2_",), "1-stage": ("w13_", "w2_")}
_CLOSED: Final[Mapping[str, tuple[str, ...]]] = {
    "gate_mode": ("separated", "interleave"),
    "is_shuffled": ("true", "false"),
    "split_k": ("1", "n"),
    "post_activation_layout": ("", "auto", "standard"),
    "activation_dtype": get_args(Dtype),
    "weight_dtype": get_args(CallDtype),
    "quant_type": get_args(QuantType),
}
"""Values of a call's facts."""


_Values = dict[str, set[str]]


@dataclass(frozen=True, slots=True)
class Claim:
    """Claimed layout of one case, with its evidence.

    Attributes:
        case: facts of the call and groups of the kernel's name; ``arch`` where the family has GPUs.
        evidence: the strongest that gives this layout; None where there is none.
    """

    family: str
    case: tuple[tuple[str, str], ...]
    role: str
    layout: str
    evidence: KernelEvidence | None


def evidence_problems(book: Book) -> Iterator[Problem]:
    """Yield what is wrong with evidence, and packaged claims that have none.

    Raises:
        BookError: an entry of the packaged file is not what it must be.
    """
    for entry in book.kernel_evidence.values():
        yield from _entry(book, entry)
    for family in book.families:
        yield from _contradictions(book, family)
    for claim in claims_of(book):
        place = book.places["kernel_families", claim.family]
        if claim.evidence is None and place.packaged:
            yield place.problem(
                f"{claim.family}: nothing says how it is known that it reads {claim.role} as {claim.layout}"
                f" ({case_text(claim.case)}); {SECTION} needs an entry",
                "variants",
            )


def claims_of(book: Book) -> Iterator[Claim]:
    """Yield every claim of the families, case by case."""
    for family in book.families:
        yield from _FamilyCases(book, family).claims()


class Statement(Frozen):
    """Layout that a family reads, with one kind of evidence.

    Attributes:
        family: the kernel family.
        arch: the GPU; empty where the family exists for all.
        role: the tensor.
        layout: how it is read.
        known: the kind of evidence; None where the book does not say.
        case: facts of the call and groups of the kernel's name, as far as they matter.
        places: where the evidence can be read.
    """

    family: str
    arch: str
    role: str
    layout: str
    known: Kind | None
    case: str = ""
    places: tuple[str, ...] = ()


def statements_of(book: Book) -> tuple[Statement, ...]:
    """Return what the families read, by kind of evidence."""
    grouped: dict[tuple[str, str, str, str, Kind | None], list[Claim]] = {}
    all_cases: dict[str, list[Claim]] = {}
    for claim in claims_of(book):
        arch, kind = dict(claim.case).get("arch", ""), claim.evidence.known.kind if claim.evidence else None
        grouped.setdefault((claim.family, arch, claim.role, claim.layout, kind), []).append(claim)
        all_cases.setdefault(claim.family, []).append(claim)
    domains = {family: _values(claims) for family, claims in all_cases.items()}
    return tuple(_statement(*key, claims, domains[key[0]]) for key, claims in grouped.items())


def _statement(
    family: str, arch: str, role: str, layout: str, known: Kind | None, claims: list[Claim], domains: _Values
) -> Statement:
    values = {name: found for name, found in _values(claims).items() if name != "arch" and found != domains[name]}
    places = dict.fromkeys(place for claim in claims if claim.evidence for place in places_of(claim.evidence))
    return Statement(
        family=family,
        arch=arch,
        role=role,
        layout=layout,
        known=known,
        case=case_text(tuple((name, "/".join(sorted(filter(None, found)))) for name, found in values.items())),
        places=tuple(places),
    )


def _values(claims: list[Claim]) -> _Values:
    """Return the values of each fact in some claims' cases."""
    found: _Values = {}
    for claim in claims:
        for name, value in claim.case:
            found.setdefault(name, set()).add(value)
    return found


def known_readers(book: Book, names: Collection[str]) -> tuple[LayoutReader, ...]:
    """Return the families that read a layout, with the evidence for it.

    Args:
        book: the families and their evidence.
        names: the layout's id and aliases.
    """
    return tuple(
        reader.altered(evidence=_reader_evidence(book, reader.family, names))
        for reader in readers_of(book.families, names)
    )


def _reader_evidence(book: Book, family: str, names: Collection[str]) -> tuple[ReaderEvidence, ...]:
    claims = _FamilyCases(book, book.families.by_id[family]).claims()
    found = {claim.evidence.id: claim.evidence for claim in claims if claim.evidence and claim.layout in names}
    ordered = sorted(found.values(), key=lambda entry: KINDS.index(entry.known.kind))
    return tuple(ReaderEvidence(id=entry.id, kind=entry.known.kind, says=entry.says) for entry in ordered)


def places_of(entry: KernelEvidence) -> tuple[str, ...]:
    """Return where evidence can be looked up; nothing for what was derived."""
    return () if isinstance(entry.known, DerivedReads) else entry.known.places


def case_text(case: tuple[tuple[str, str], ...]) -> str:
    """Return a case in a few words."""
    words = ((name.removeprefix("name."), value) for name, value in case)
    return ", ".join(f"{name} {value}" if value else f"no {name}" for name, value in words) or "always"


class _FamilyCases:
    """Cases of one family that its variants or its evidence tell apart."""

    def __init__(self, book: Book, family: Family) -> None:
        self._book, self._family = book, family
        self._entries = [entry for entry in book.kernel_evidence.values() if entry.family == family.id]

    def claims(self) -> Iterator[Claim]:
        """Yield the family's claims."""
        for number, variant in enumerate(self._family.variants):
            for case in self._cases(number) if variant.reads else ():
                for role, layout in variant.reads.items():
                    yield Claim(self._family.id, tuple(case.items()), role, layout, self._strongest(case, role, layout))

    def contradicting(self) -> Iterator[tuple[KernelEvidence, str, str, str]]:
        """Yield contradicting evidence: role, layout found, layout claimed."""
        for number, variant in enumerate(self._family.variants):
            for case in self._cases(number):
                for entry in self._entries:
                    for role, found in entry.reads.items() if _counts(entry, case) else ():
                        claimed = variant.reads.get(role)
                        if claimed is not None and self._id(claimed) != self._id(found):
                            yield entry, role, found, claimed

    def _strongest(self, case: Mapping[str, str], role: str, layout: str) -> KernelEvidence | None:
        fitting = [
            entry
            for entry in self._entries
            if _counts(entry, case) and (not entry.reads or self._id(entry.reads.get(role, "")) == self._id(layout))
        ]
        return min(fitting, key=lambda entry: (KINDS.index(entry.known.kind), -len(entry.when)), default=None)

    def _id(self, layout: str) -> str:
        return self._book.layout(layout).id if layout in self._book.known_layouts else layout

    def _cases(self, number: int) -> Iterator[dict[str, str]]:
        """Yield the cases of a variant that no earlier one takes."""
        variants = self._family.variants
        when = variants[number].when
        domains = {
            name: tuple(value for value in values if name not in when or value in when[name])
            for name, values in self._domains.items()
        }
        for values in product(*domains.values()):
            case = dict(zip(domains, values, strict=True))
            if not any(_holds(earlier.when, case) for earlier in variants[:number]):
                yield case

    @cached_property
    def _domains(self) -> dict[str, tuple[str, ...]]:
        """Distinguishable values of each fact."""
        return {name: tuple(group[0] for group in groups) for name, groups in self._equal_values.items()}

    @cached_property
    def _equal_values(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        conditions = [entry.when for entry in self._entries] + [variant.when for variant in self._family.variants]
        found: dict[str, tuple[tuple[str, ...], ...]] = {"arch": tuple((arch,) for arch in self._family.archs or ("",))}
        for name in dict.fromkeys(name for when in conditions for name in when if name != "arch"):
            wanted = [when[name] for when in conditions if name in when]
            start = _CLOSED.get(name, ())
            if name.startswith("name.") and _may_lack(self._family.grammar, name[5:]):
                start = ("",)
            groups: dict[tuple[bool, ...], list[str]] = {}
            for value in dict.fromkeys((*start, *(value for values in wanted for value in values))):
                groups.setdefault(tuple(value in values for values in wanted), []).append(value)
            found[name] = tuple(map(tuple, groups.values()))
        return found

    def _described(self, case: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """Return a case with all values that it stands for."""
        groups = {(name, group[0]): group for name, equal in self._equal_values.items() for group in equal}
        return tuple((name, "/".join(groups.get((name, value), (value,)))) for name, value in case.items())


def _may_lack(grammar: str, group: str) -> bool:
    """Return whether a kernel name can lack a group."""
    optional = rf"(\(\?:[^()]*)?\(\?P<{group}>[^()]*\)(?(1)[^()]*\))\?"
    return linear_pattern(grammar).matches("") or re.search(optional, grammar) is not None


def _counts(entry: KernelEvidence, case: Mapping[str, str]) -> bool:
    known = entry.known
    return _holds(entry.when, case) and not (isinstance(known, DerivedReads) and known.arch != case["arch"])


def _holds(when: Mapping[str, tuple[str, ...]], case: Mapping[str, str]) -> bool:
    return all(case.get(name, "") in values for name, values in when.items())


def _entry(book: Book, entry: KernelEvidence) -> Iterator[Problem]:
    place = book.place_of(SECTION, entry.id)
    family = book.entries["kernel_families"].get(entry.family)
    if family is None:
        valid = near(entry.family, sorted(book.entries["kernel_families"]))
        yield place.problem(f"{entry.id}: unknown kernel family {entry.family!r}", "family", valid=valid)
        return
    yield from _fields(book, place, entry, family)


def _contradictions(book: Book, family: Family) -> Iterator[Problem]:
    """Yield evidence that contradicts a family's claims."""
    seen: set[tuple[str, str, str]] = set()
    for entry, role, found, claimed in _FamilyCases(book, family).contradicting():
        if (entry.id, role, claimed) in seen:
            continue
        seen.add((entry.id, role, claimed))
        yield book.places["kernel_families", family.id].problem(
            f"{family.id} says that it reads {role} as {claimed}, and {SECTION} {entry.id!r} that it is {found}: "
            f"{entry.known.says}",
            "variants",
        )


def _fields(book: Book, place: Place, entry: KernelEvidence, family: Family) -> Iterator[Problem]:
    groups = linear_pattern(family.grammar).names
    facts = {*RuntimeFacts._fields, *(f"name.{group}" for group in groups)}
    for name in sorted(entry.when.keys() - facts):
        yield place.problem(f"{entry.id}: nothing is known as {name!r}", "when", name, valid=sorted(facts))
    layouts = {*book.known_layouts, *book.entries["packings"]}
    for role, layout in entry.reads.items():
        if role not in ROLES or not role.startswith(_ROLES[family.stage]):
            yield place.problem(f"{entry.id}: stage {family.stage} reads no {role!r}", "reads", role)
        if layout not in layouts:
            valid = near(layout, sorted(layouts))
            yield place.problem(f"{entry.id}: unknown layout {layout!r}", "reads", role, valid=valid)
    known = entry.known
    if isinstance(known, DerivedReads) and known.arch not in (family.archs or book.archs):
        valid = tuple(family.archs or book.archs)
        yield place.problem(f"{entry.id}: {family.id} has no {known.arch!r}", "known", "arch", valid=valid)
