"""Problems of kernel evidence: references, contradictions, missing entries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.base.linear_pattern import linear_pattern
from preshuffle.registry.base.suggestions import meant
from preshuffle.registry.base.words import ROLES
from preshuffle.registry.entries import BackendEntry
from preshuffle.registry.kernels import DerivedReads, Family, KernelEvidence, Owner, RuntimeFacts
from preshuffle.registry.lint.evidence.claims import BACKEND_FACTS, ReadCases, case_text, claims_of, owners_of
from preshuffle.registry.loading import Book, Place

SECTION: Final = "kernel_evidence"
_ROLES: Final = {"1": ("w13_",), "2": ("w2_",), "1-stage": ("w13_", "w2_")}
_WORDS: Final = {"kernel_families": ("family", "kernel family"), "backends": ("backend", "backend")}
"""Field and name of each kind of owner."""


def evidence_problems(book: Book) -> Iterator[Problem]:
    """Yield what is wrong with evidence, and packaged claims that have none.

    Raises:
        BookError: an entry of the packaged file is not what it must be.
    """
    for entry in book.kernel_evidence.values():
        yield from _entry(book, entry)
    for owner in owners_of(book):
        yield from _contradictions(book, owner)
    for claim in claims_of(book):
        place = book.places[claim.owner]
        if claim.evidence is None and place.packaged:
            yield place.problem(
                f"{claim.owner[1]}: nothing says how it is known that it reads {claim.role} as {claim.layout}"
                f" ({case_text(claim.case)}); {SECTION} needs an entry",
                "variants",
            )


def _entry(book: Book, entry: KernelEvidence) -> Iterator[Problem]:
    place = book.place_of(SECTION, entry.id)
    section, id = entry.owner
    owner: Family | BackendEntry | None = book.entries[section].get(id)
    if owner is None:
        field, words = _WORDS[section]
        yield place.unknown(f"{entry.id}: unknown {words}", id, sorted(book.entries[section]), field)
        return
    yield from _fields(book, place, entry, owner)


def _contradictions(book: Book, owner: Owner) -> Iterator[Problem]:
    """Yield evidence that contradicts what a family or a backend claims."""
    seen: set[tuple[str, str, str]] = set()
    for entry, role, found, claimed in ReadCases(book, owner).contradicting():
        if (entry.id, role, claimed) in seen:
            continue
        seen.add((entry.id, role, claimed))
        yield book.places[owner].problem(
            f"{owner[1]} says that it reads {role} as {claimed}, and {SECTION} {entry.id!r} that it is {found}: "
            f"{entry.known.says}",
            "variants",
        )


def _fields(book: Book, place: Place, entry: KernelEvidence, owner: Family | BackendEntry) -> Iterator[Problem]:
    facts = _facts_of(owner)
    for name in sorted(entry.when.keys() - facts):
        text = f"{entry.id}: nothing is known as {name!r}{meant(name, sorted(facts))}"
        yield place.problem(text, "when", name, valid=sorted(facts))
    layouts = {*book.known_layouts, *book.entries["packings"]}
    begin = _ROLES[owner.stage] if isinstance(owner, Family) else ("w13_", "w2_")
    for role, layout in entry.reads.items():
        if role not in ROLES or not role.startswith(begin):
            reader = f"stage {owner.stage}" if isinstance(owner, Family) else owner.id
            yield place.problem(f"{entry.id}: {reader} reads no {role!r}", "reads", role)
        if layout not in layouts:
            yield place.unknown(f"{entry.id}: unknown layout", layout, sorted(layouts), "reads", role)
    known = entry.known
    if isinstance(known, DerivedReads) and known.arch not in (owner.archs or book.archs):
        valid = tuple(owner.archs or book.archs)
        yield place.problem(f"{entry.id}: {owner.id} has no {known.arch!r}", "known", "arch", valid=valid)


def _facts_of(owner: Family | BackendEntry) -> set[str]:
    """Return the facts that evidence of an owner may depend on."""
    if isinstance(owner, Family):
        return {*RuntimeFacts._fields, *(f"name.{group}" for group in linear_pattern(owner.grammar).names)}
    return set(BACKEND_FACTS)
