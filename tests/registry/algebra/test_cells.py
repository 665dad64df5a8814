"""Cells are the layout's own addresses, cut where memory and rows run together."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import pytest

from preshuffle.registry import Layout, Registry
from preshuffle.registry.algebra.cells import CellGrid, contiguous_run, segments

ENTRIES = Registry.default().book.layouts
SHAPES = {"byte": (2, 64, 128), "group": (2, 64, 16), "any": (2, 64, 24)}


def grid_of(name: str) -> CellGrid:
    entry = ENTRIES[name]
    bound = entry.layout().bind(*SHAPES[entry.unit])
    return CellGrid(bound, "GGUU", contiguous_run(bound))


@pytest.mark.parametrize("name", ENTRIES)
def test_the_cells_in_memory_are_all_units_in_order(name: str) -> None:
    grid = grid_of(name)
    bound = grid.bound
    units = [
        (cell.expert, cell.row, cell.k + unit)
        for cell in grid.in_memory(0, prod(bound.shape))
        for unit in range(grid.run)
    ]
    assert units == [bound.source(address) for address in range(prod(bound.shape))]


@pytest.mark.parametrize("name", ENTRIES)
def test_the_run_cannot_be_longer(name: str) -> None:
    grid = grid_of(name)
    bound, run = grid.bound, grid.run
    assert bound.shape[2] % run == 0
    if 2 * run <= bound.shape[2]:
        assert bound.address(0, 0, run) != run


@pytest.mark.parametrize("name", ENTRIES)
def test_segments_are_the_cells_in_order_with_one_step_each(name: str) -> None:
    cells = list(grid_of(name).in_memory(0, 512))
    groups = segments(cells)
    assert [cell for group in groups for cell in group] == cells
    for group in groups:
        steps = {(two.row - one.row, two.k - one.k) for one, two in pairwise(group)}
        assert len(steps) <= 1
        assert len({(cell.expert, cell.half) for cell in group}) == 1


def test_rows_that_alternate_are_counted_in_their_half() -> None:
    bound = Layout.of("x", "e n k -> e n k").bind(1, 8, 4)
    grid = CellGrid(bound, "GUGU", 4, live=(3, 4), tile_rows=2)
    assert [grid.cell(0, row, 0).name for row in grid.first_rows(2)] == ["g0", "g1", "u0", "u1"]
    assert grid.first_rows(2) == [0, 2, 1, 3]
    assert [grid.cell(0, row, 0).pad for row in range(8)] == [False] * 6 + [True] * 2
    assert grid.cell(0, 5, 0).tile == 1
