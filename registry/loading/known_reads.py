"""Lines of text on how kernel reads are known."""

from __future__ import annotations

from collections.abc import Iterable

from preshuffle.registry.kernels import Stage
from preshuffle.registry.loading.book import Book

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
