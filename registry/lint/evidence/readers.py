"""Readers of a layout with their evidence."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from preshuffle.registry.kernels import BackendReader, LayoutReader, Owner, ReaderEvidence, readers_of
from preshuffle.registry.lint.evidence.claims import Claim, ReadCases
from preshuffle.registry.loading import Book


def known_readers(book: Book, names: Collection[str]) -> tuple[LayoutReader, ...]:
    """Return the families that read a layout, with the evidence for it.

    Args:
        book: the families and their evidence.
        names: the layout's id and aliases.
    """
    return tuple(
        reader.altered(evidence=_evidence(_claims(book, ("kernel_families", reader.family), names)))
        for reader in readers_of(book.families, names)
    )


def known_backends(book: Book, names: Collection[str]) -> tuple[BackendReader, ...]:
    """Return the backends whose own kernels read a layout, with evidence.

    Args:
        book: the backends and the evidence.
        names: the layout's id and aliases.
    """
    found = []
    for id in sorted(book.entries["backends"]):
        claims = _claims(book, ("backends", id), names)
        if claims:
            roles = tuple(dict.fromkeys(claim.role for claim in claims))
            found.append(BackendReader(backend=id, roles=roles, evidence=_evidence(claims)))
    return tuple(found)


def _claims(book: Book, owner: Owner, names: Collection[str]) -> list[Claim]:
    return list(ReadCases(book, owner).claims(names))


def _evidence(claims: Iterable[Claim]) -> tuple[ReaderEvidence, ...]:
    found = {claim.evidence.id: claim.evidence for claim in claims if claim.evidence}
    ordered = sorted(found.values(), key=lambda entry: entry.strength)
    return tuple(ReaderEvidence(id=entry.id, kind=entry.known.kind, says=entry.says) for entry in ordered)
