"""Backends by name: AITER's dispatch, or kernels and layouts of their own."""

from __future__ import annotations

from preshuffle.registry.entries import BackendEntry, ScaleLabelEntry, Variant
from preshuffle.registry.layer import MoELayer
from preshuffle.registry.loading import Book


class Backends:
    """The book's backends and scale labels, by any of their names."""

    def __init__(self, book: Book) -> None:
        """Index the names of a book; case does not matter."""
        entries: list[BackendEntry] = list(book.entries["backends"].values())
        labels: dict[str, ScaleLabelEntry] = dict(book.entries["scale_labels"])
        self._by_name = {name.casefold(): entry for entry in entries for name in (*entry.aliases, entry.id)}
        self._labels = {name.casefold(): entry for name, entry in labels.items()}

    def find(self, name: str | None) -> BackendEntry | None:
        """Return a backend by name, in any case; None if unknown."""
        return self._by_name.get(name.casefold()) if name else None

    def label(self, name: str | None) -> ScaleLabelEntry | None:
        """Return a scale label by name; None if unknown."""
        return self._labels.get(name.casefold()) if name else None

    def variant(self, entry: BackendEntry | None, layer: MoELayer) -> Variant | None:
        """Return a backend's variant for a layer; None where unknown."""
        query = layer.query
        return entry.variant_for(query.arch, query.weight_dtype, query.activation) if entry else None

    def through_aiter(self, entry: BackendEntry, layer: MoELayer) -> bool:
        """Return whether a backend calls AITER's fused MoE.

        AITER's dispatch then picks the kernel.
        """
        variant = self.variant(entry, layer)
        return variant is not None and variant.through == "aiter"
