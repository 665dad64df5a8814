"""Response models of the registry's listings, and the functions that fill them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

import preshuffle
from preshuffle.registry import Registry
from preshuffle.registry.algebra.layout import Unit
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.entries import ArchEntry, LayoutEntry, ModelEntry, Recipe


class RegistryView(Frozen):
    """The current registry."""

    digest: str = Field(description="of all entries of the book; comments and order do not change it")
    kernel_tables: str | None = Field(description="digest of the kernel tables; null: none are loaded")
    version: str = Field(description="of preshuffle")
    counts: dict[str, int] = Field(description="entries by section of the book")
    sources: tuple[str, ...] = Field(description="the book's files, later ones on top")


class LayoutView(Frozen):
    """Layout, and the gate mode of kernels that read it."""

    id: str
    title: str
    pattern: str
    unit: Unit
    gate_mode: Literal["separated", "interleave"]
    row_multiple: int = Field(description="rows must divide by it; rows of each half where the pattern has g")
    k_multiple: int = Field(description="K must divide by it, in units")
    aliases: tuple[str, ...]
    evidence: tuple[str, ...]


class Recipes(Frozen):
    """All recipes."""

    registry_digest: str
    recipes: tuple[Recipe, ...]


class Layouts(Frozen):
    """All layouts."""

    registry_digest: str
    layouts: tuple[LayoutView, ...]


class Models(Frozen):
    """All models that the book knows."""

    registry_digest: str
    models: tuple[ModelEntry, ...]


class Archs(Frozen):
    """All GPU architectures that the book knows."""

    registry_digest: str
    archs: tuple[ArchEntry, ...]


def registry_view(registry: Registry) -> RegistryView:
    """Describe the registry."""
    return RegistryView(
        digest=registry.digest,
        kernel_tables=registry.tables.digest if registry.tables is not None else None,
        version=preshuffle.__version__,
        counts={section: len(entries) for section, entries in registry.book.entries.items()},
        sources=registry.book.sources,
    )


def layout_view(entry: LayoutEntry) -> LayoutView:
    """Describe a layout."""
    layout = entry.layout()
    return LayoutView(
        id=entry.id,
        title=entry.title,
        pattern=entry.pattern,
        unit=layout.unit,
        gate_mode=layout.gate_mode,
        row_multiple=layout.row_multiple,
        k_multiple=layout.k_multiple,
        aliases=entry.aliases,
        evidence=entry.evidence,
    )


def recipes_view(registry: Registry) -> Recipes:
    """List the recipes."""
    return Recipes(registry_digest=registry.digest, recipes=tuple(registry.book.recipes.values()))


def layouts_view(registry: Registry) -> Layouts:
    """List the layouts."""
    return Layouts(registry_digest=registry.digest, layouts=tuple(map(layout_view, registry.book.layouts.values())))


def models_view(registry: Registry) -> Models:
    """List the models."""
    return Models(registry_digest=registry.digest, models=tuple(registry.book.models.values()))


def archs_view(registry: Registry) -> Archs:
    """List the GPU architectures."""
    return Archs(registry_digest=registry.digest, archs=tuple(registry.book.archs.values()))
