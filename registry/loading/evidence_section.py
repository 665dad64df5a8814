"""Lazily loaded section of kernel evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Final

from pydantic import ValidationError

from preshuffle.registry.base.errors import BookError, Problem
from preshuffle.registry.kernels import KernelEvidence, packaged_evidence
from preshuffle.registry.text import Document, field_problems

SECTION: Final = "kernel_evidence"


class EvidenceSection(Mapping[str, KernelEvidence]):
    """Evidence by id; packaged entries are read on first use.

    It says how a claim is known and changes no answer, so that a command that shows none of it need not read it. Of
    its entries only an overlay's count for the book's digest.

    Attributes:
        own: the entries of overlays, validated when they were loaded.
    """

    def __init__(self, own: Mapping[str, KernelEvidence]) -> None:
        """Put overlays' entries over the packaged ones."""
        self.own = own

    def __getitem__(self, id: str) -> KernelEvidence:
        """Return an entry.

        Raises:
            BookError: a packaged entry is wrong.
        """
        return self._all[id]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids, as they stand in the files."""
        return iter(self._all)

    def __len__(self) -> int:
        """Count the entries."""
        return len(self._all)

    def __reduce__(self) -> tuple[type[EvidenceSection], tuple[Mapping[str, KernelEvidence]]]:
        """Copy and pickle the overlays' entries only."""
        return EvidenceSection, (self.own,)

    def as_written(self) -> Mapping[str, Mapping[str, Any]]:
        """Return all entries unparsed, overlays' first."""
        own = {id: entry.model_dump(mode="json", exclude={"id"}) for id, entry in self.own.items()}
        packaged = packaged_evidence()[1]
        return {**own, **{id: raw for id, raw in packaged.items() if id not in own}}

    def packaged_document(self) -> Document:
        """Return the packaged file, for the places of its entries."""
        return packaged_evidence()[0]

    @cached_property
    def _all(self) -> Mapping[str, KernelEvidence]:
        document, raw = packaged_evidence()
        entries: dict[str, KernelEvidence] = {}
        problems: list[Problem] = []
        for id, fields in raw.items():
            try:
                entries[id] = KernelEvidence.model_validate({"id": id, **fields})
            except ValidationError as error:
                found = field_problems(error)
                problems += (document.problem((SECTION, id, *path), str(problem)) for path, problem in found)
        if problems:
            raise BookError(problems)
        return {**entries, **self.own}
