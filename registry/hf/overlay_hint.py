"""Overlay for an unknown model type, generated from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preshuffle.registry.hf.found_values import cut
from preshuffle.registry.hf.paths import value_at
from preshuffle.registry.loading import Book

_SIZES = ("hidden_size", "intermediate_size", "num_experts", "top_k")
_ASSUMED = "activation: Silu, gate_up_order: GGUU, gated: true, bias: false"


def sections_of(book: Book) -> tuple[str, ...]:
    """Return where the book's model types keep their language model, as paths."""
    types = book.model_types.values()
    return tuple(dict.fromkeys(path for entry in types for path in (*entry.wraps, entry.section) if path))


def overlay_hint(config: Mapping[str, Any], book: Book) -> tuple[str, ...]:
    """Return three lines of an overlay that make the model type known.

    Sizes are taken from the configuration's fields where another type of the book calls them the same; activation, row
    order and bias are assumed, and the reader is told to correct them.
    """
    names = {size: _names(size, book) for size in _SIZES}
    section = next((path for path in ("", *sections_of(book)) if _has(config, path, names["num_experts"])), "")
    language = value_at(config, section) if section else config
    fields = ", ".join(f"{size}: [{_first(language, names[size])}]" for size in _SIZES)
    place = f"section: {section}, " if section else ""
    return (
        "model_types:",
        f"  {cut(str(config.get('model_type')))}: {{{place}fields: {{{fields}}},",
        f"    constants: {{{_ASSUMED}}}, evidence: [URL of the configuration class]}}",
    )


def _names(size: str, book: Book) -> list[str]:
    """Return the book's field names for a size, expert-specific ones first."""
    names = dict.fromkeys(name for entry in book.model_types.values() for name in entry.fields.get(size, ()))
    return sorted(names, key=lambda name: not ("expert" in name or "moe" in name))


def _has(config: Mapping[str, Any], path: str, names: list[str]) -> bool:
    section = value_at(config, path) if path else config
    return isinstance(section, Mapping) and any(value_at(section, name) for name in names)


def _first(language: Any, names: list[str]) -> str:
    return next((name for name in names if value_at(language, name) is not None), names[0])
