"""Readers of a layout: kernel families, and backends with own kernels."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.kernels.families.evidence import Kind
from preshuffle.registry.kernels.families.family import Family


class ReaderEvidence(Frozen):
    """How it is known that a family reads a layout.

    Attributes:
        id: in the book's ``kernel_evidence``.
        kind: ``derived``, ``bytes``, ``source`` or ``engine``.
        says: the same in a line.
    """

    id: str
    kind: Kind
    says: str


class LayoutReader(Frozen):
    """A kernel family that reads a layout.

    Attributes:
        family: its id.
        stage: ``1``, ``2`` or ``1-stage``.
        roles: the tensors that it reads in this layout, for some call at least.
        evidence: how that is known, the strongest first; empty where the book does not say.
    """

    family: str
    stage: Literal["1", "2", "1-stage"]
    roles: tuple[str, ...]
    evidence: tuple[ReaderEvidence, ...] = ()


class BackendReader(Frozen):
    """A backend whose own kernels read a layout.

    Attributes:
        backend: its id.
        roles: the tensors that it may read in this layout, on some GPU at least.
        evidence: how that is known, the strongest first; empty where the book does not say.
    """

    backend: str
    roles: tuple[str, ...]
    evidence: tuple[ReaderEvidence, ...] = ()


def readers_of(families: Iterable[Family], names: Collection[str]) -> tuple[LayoutReader, ...]:
    """Return the families that read a layout.

    Args:
        families: of a book, overlays included.
        names: the layout's id and aliases.
    """
    found = []
    for family in families:
        reads = [item for variant in family.variants for item in variant.reads.items()]
        roles = tuple(dict.fromkeys(role for role, layout in reads if layout in names))
        if roles:
            found.append(LayoutReader(family=family.id, stage=family.stage, roles=roles))
    return tuple(sorted(found, key=lambda reader: (reader.stage, reader.family)))
