"""Lines of text on how kernel reads are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from preshuffle.registry.entries import BackendEntry
from preshuffle.registry.kernels import EvidenceRecord, Stage
from preshuffle.registry.loading.book import Book
from preshuffle.registry.values.decision import ObservedRead

Read = tuple[str, str, str | None]
"""Role, layout, and the id of the evidence; None where the book does not say how it is known."""

NOT_SAID = "the book does not say how this is known"


def reads_of(stages: Iterable[Stage | None]) -> tuple[Read, ...]:
    """Return what stages read, each once."""
    reads = (
        (role, layout, stage.evidence.get(role))
        for stage in stages
        if stage is not None
        for role, layout in stage.reads.items()
    )
    return tuple(dict.fromkeys(reads))


def backend_reads(
    book: Book, backend: str, layouts: Mapping[str, str], facts: tuple[str, str | None, str | None]
) -> tuple[ObservedRead, ...]:
    """Return which layouts a backend's own kernels read, with evidence.

    Nothing for a backend that hands over to AITER's dispatch: its kernels say it themselves.

    Args:
        book: the backends and the evidence.
        backend: id of one.
        layouts: of the tensors, by role.
        facts: GPU, dtype of the weights, activation.
    """
    entry: BackendEntry | None = book.entries["backends"].get(backend)
    variant = entry.variant_for(*facts) if entry is not None else None
    if variant is None or variant.through == "aiter":
        return ()
    reads = {str(role): layouts[role] for role, allowed in variant.reads.items() if layouts.get(role) in allowed}
    names = ("arch", "weight_dtype", "activation")
    known = book.families.evidence_of_backend(
        backend, reads, {name: fact or "" for name, fact in zip(names, facts, strict=True)}
    )
    return tuple(_backend_read(role, layout, known.get(role)) for role, layout in reads.items())


def read_lines(book: Book, reads: Iterable[ObservedRead]) -> tuple[str, ...]:
    """Return one line per evidence of some reads."""
    return known_lines(book, [(read.role, read.layout, read.evidence) for read in reads])


def _backend_read(role: str, layout: str, record: EvidenceRecord | None) -> ObservedRead:
    if record is None:
        return ObservedRead(role=role, layout=layout)
    return ObservedRead(role=role, layout=layout, known=record.kind, evidence=record.id)


def known_lines(book: Book, reads: Iterable[Read]) -> tuple[str, ...]:
    """Return one line per evidence: tensors, layouts, how known.

    Example:
        >>> from preshuffle.registry import Registry
        >>> known_lines(Registry.default().book, [("w2_weight", "sep16", None)])
        ('w2 sep16: the book does not say how this is known',)
    """
    grouped: dict[str, list[str]] = {}
    for role, layout, id in reads:
        words = grouped.setdefault(_says(book, id), [])
        text = f"{role.replace('_weight', '').replace('_', ' ')} {layout}"
        if text not in words:
            words.append(text)
    return tuple(f"{', '.join(words)}: {says}" for says, words in grouped.items())


def _says(book: Book, id: str | None) -> str:
    if id is None:
        return NOT_SAID
    entry = book.kernel_evidence.get(id)
    return entry.says if entry is not None else f"by {id!r} of another book"
