"""Statements on what kernels read, by kind of evidence."""

from __future__ import annotations

from typing import Literal

from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.kernels import DerivedReads, KernelEvidence, Kind, Owner
from preshuffle.registry.lint.evidence.claims import Claim, case_text, claims_of
from preshuffle.registry.loading import Book

_Values = dict[str, set[str]]


class Statement(Frozen):
    """Layout that a family or backend reads, by kind of evidence.

    Attributes:
        family: the kernel family, or the backend.
        section: the book's section of that.
        arch: the GPU; empty where the family exists for all.
        role: the tensor.
        layout: how it is read.
        known: the kind of evidence; None where the book does not say.
        by_reading: whether nothing was run for it.
        case: facts of the call and groups of the kernel's name, as far as they matter.
        places: where the evidence can be read.
    """

    family: str
    section: Literal["kernel_families", "backends"] = "kernel_families"
    arch: str
    role: str
    layout: str
    known: Kind | None
    by_reading: bool = False
    case: str = ""
    places: tuple[str, ...] = ()


def statements_of(book: Book) -> tuple[Statement, ...]:
    """Return what families and backends read, by kind of evidence."""
    grouped: dict[tuple[Owner, str, str, str, Kind | None, bool], list[Claim]] = {}
    all_cases: dict[Owner, list[Claim]] = {}
    for claim in claims_of(book):
        known = (claim.evidence.known.kind, claim.evidence.by_reading) if claim.evidence else (None, True)
        key = (claim.owner, dict(claim.case).get("arch", ""), claim.role, claim.layout, *known)
        grouped.setdefault(key, []).append(claim)
        all_cases.setdefault(claim.owner, []).append(claim)
    domains = {owner: _values(claims) for owner, claims in all_cases.items()}
    return tuple(_statement(*key, claims, domains[key[0]]) for key, claims in grouped.items())


def _statement(
    owner: Owner,
    arch: str,
    role: str,
    layout: str,
    known: Kind | None,
    by_reading: bool,
    claims: list[Claim],
    domains: _Values,
) -> Statement:
    values = {name: found for name, found in _values(claims).items() if name != "arch" and found != domains[name]}
    places = dict.fromkeys(place for claim in claims if claim.evidence for place in places_of(claim.evidence))
    return Statement(
        family=owner[1],
        section=owner[0],
        arch=arch,
        role=role,
        layout=layout,
        known=known,
        by_reading=by_reading,
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


def places_of(entry: KernelEvidence) -> tuple[str, ...]:
    """Return where evidence can be looked up; nothing for what was derived."""
    return () if isinstance(entry.known, DerivedReads) else entry.known.places
