"""Einops lines found from addresses alone: those of the book, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from preshuffle.layouts.derive.kernels.placement import addresses_in, fits
from preshuffle.layouts.derive.pattern_of import is_layout_of, pattern_of
from preshuffle.registry import Layout, Registry

LAYOUTS = {id: entry.layout() for id, entry in Registry.load().book.layouts.items()}
SHAPES = [(2, 512, 256), (3, 128, 64), (2, 192, 128), (1, 64, 512)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("id", LAYOUTS)
def test_every_layout_of_the_book_is_found_again_from_its_addresses(id: str, shape: tuple[int, int, int]) -> None:
    if not fits(LAYOUTS[id], shape):
        pytest.skip("the layout does not fit the shape")
    addresses = addresses_in(LAYOUTS[id], shape)
    line = pattern_of(addresses, "byte", gated=True)
    assert line is not None
    assert is_layout_of(Layout.of("found", line), addresses)


def test_the_line_of_a_layout_is_spelled_as_in_the_book() -> None:
    for id in ("sep16", "gui16", "gurow16", "sep32", "gurow", "i4_scale_pairs"):
        addresses = addresses_in(LAYOUTS[id], (2, 512, 256))
        assert pattern_of(addresses, "byte", gated=True) == LAYOUTS[id].pattern.text


def test_addresses_that_no_line_gives_have_none() -> None:
    addresses = addresses_in(LAYOUTS["sep16"], (2, 64, 64))
    swizzled = addresses ^ (addresses >> 5 & 1)  # a bit of the row flips one of K
    assert pattern_of(swizzled, "byte", gated=True) is None
    unknown = addresses.copy()
    unknown[1, 3, 5] = -1
    assert pattern_of(unknown, "byte", gated=True) is None
    assert pattern_of(np.zeros_like(addresses), "byte", gated=True) is None
