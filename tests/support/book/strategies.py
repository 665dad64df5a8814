"""What the tests of the registry share: random layouts and shapes, references in numpy, and overlays of the book."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from hypothesis import strategies as st

from preshuffle.registry import BoundLayout, Decision, Layout, LayoutError, Query, Registry
from preshuffle.registry.algebra.pattern import fixed_size

REGISTRY = Registry.default()
BOOK = REGISTRY.book
LAYOUTS: dict[str, Layout] = {id: entry.layout() for id, entry in BOOK.layouts.items()}
GPT_OSS: dict[str, Any] = {"model": "openai/gpt-oss-120b", "arch": "gfx950"}

Indices = np.ndarray[Any, np.dtype[np.int64]]


def decide(registry: Registry = REGISTRY, **fields: Any) -> Decision:
    """Resolve a gpt-oss-120b query on gfx950 with some fields changed."""
    return registry.resolve(Query.parse({**GPT_OSS, **fields}))


def load_overlay(folder: Path, text: str | bytes, name: str = "overlay.yaml") -> Registry:
    """Load the packaged book with one overlay file on top."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Registry.load([path])


def shapes(*layouts: Layout, most: int = 3) -> st.SearchStrategy[tuple[int, int, int]]:
    """Draw small shapes ``(experts, rows, K)`` that all of these layouts can be bound to."""
    rows = int(np.lcm.reduce([2, *(layout.pattern.row_tile for layout in layouts)]))
    k = int(np.lcm.reduce([layout.k_multiple for layout in layouts]))
    tiles = st.integers(1, most)
    return st.tuples(st.integers(1, 2), tiles.map(lambda n: n * rows), tiles.map(lambda n: n * k))


def cut_each_other(compose: Callable[[], object]) -> bool:
    """Whether a composition is refused since the tiles cut each other; any other refusal is raised."""
    try:
        compose()
    except LayoutError as error:
        if "cut each other" not in str(error):
            raise
        return True
    return False


def source_table(layout: Layout, shape: tuple[int, int, int]) -> Indices:
    """Return the logical position of the unit at each address, by einops' own rearrange of the layout's line."""
    positions = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    axes = layout.pattern.text.replace("(", " ").replace(")", " ").replace("->", " ").split()
    sizes = {axis: size for axis in set(axes) if (size := fixed_size(axis)) is not None}
    laid: Indices = rearrange(positions, layout.pattern.text, **sizes).reshape(-1)
    return laid


def address_table(bound: BoundLayout) -> Indices:
    """Return the address of each unit, shaped like the logical tensor, by inverting einops' answer."""
    table = source_table(bound.layout, bound.shape)
    addresses = np.empty_like(table)
    addresses[table] = np.arange(table.size)
    return addresses.reshape(bound.shape)
