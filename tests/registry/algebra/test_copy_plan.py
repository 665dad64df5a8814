"""Copy plans, executed naively, against a reference that moves one byte at a time by its address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preshuffle.registry import BoundLayout, CopyPlan, LayoutError, PlainView, plan_copy
from preshuffle.registry.algebra.copy_plan import Box
from support.book.strategies import LAYOUTS, Indices, address_table

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
FILL = 0x7F


@dataclass(frozen=True)
class Slice:
    """A tensor-parallel slice of a checkpoint tensor ``[experts, halves * rows, k]``, and the room for it."""

    bound: BoundLayout
    plain: PlainView
    checkpoint: Bytes


def offsets(box: Box, side: Literal["plain", "laid"]) -> Indices:
    start, strides = (box.plain_offset, box.plain_strides) if side == "plain" else (box.laid_offset, box.laid_strides)
    total = np.array([start], dtype=np.int64)
    for size, stride in zip(box.sizes, strides, strict=True):
        total = (total[:, None] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
    return total


def execute(plan: CopyPlan, checkpoint: Bytes) -> Bytes:
    target = np.zeros(plan.nbytes, dtype=np.uint8)
    for box in plan.copies:
        target[offsets(box, "laid")] = checkpoint[offsets(box, "plain")]
    for box in plan.fills:
        target[offsets(box, "laid")] = FILL
    return target


def reference(case: Slice) -> Bytes:
    experts, rows, k = case.bound.shape
    plain, address = case.plain, address_table(case.bound)
    target = np.full(experts * rows * k, FILL, dtype=np.uint8)
    for e, h, r in np.ndindex(experts, plain.halves, plain.rows):
        start = plain.offset + e * plain.expert_stride + h * plain.half_stride + r * plain.row_stride
        target[address[e, h * rows // plain.halves + r, : plain.k]] = case.checkpoint[start : start + plain.k]
    return target


@st.composite
def slices(draw: st.DrawFn, id: str) -> Slice:
    layout = LAYOUTS[id]
    halves = 2 if layout.pattern.splits_gate_up else draw(st.sampled_from([1, 2]))
    half_tile = layout.pattern.row_tile if not layout.pattern.splits_gate_up else layout.row_multiple
    if halves == 1 and "(g" in layout.pattern.text:
        half_tile *= 2  # einops, unlike the layout, splits gate and up even where both stay
    half, k = half_tile * draw(st.integers(1, 3)), layout.k_multiple * draw(st.integers(1, 3))
    experts = draw(st.integers(1, 3))
    rows, live_k = draw(st.integers(1, half)), draw(st.integers(1, k))
    before_rows, after_rows = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    before_k, after_k = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    all_rows, all_k = before_rows + rows + after_rows, before_k + live_k + after_k
    gugu = draw(st.booleans())
    row_stride = all_k * (halves if gugu else 1)
    plain = PlainView(
        experts=experts,
        halves=halves,
        rows=rows,
        k=live_k,
        expert_stride=all_k * halves * all_rows,
        half_stride=all_k * (1 if gugu else all_rows),
        row_stride=row_stride,
        offset=before_rows * row_stride + before_k,
    )
    checkpoint = np.random.default_rng(1).integers(0, 127, experts * halves * all_rows * all_k, dtype=np.uint8)
    return Slice(layout.bind(experts, halves * half, k), plain, checkpoint)


every_layout = pytest.mark.parametrize("id", LAYOUTS)


@every_layout
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_plan_moves_every_byte_where_its_address_says(id: str, data: st.DataObject) -> None:
    case = data.draw(slices(id))
    assert np.array_equal(execute(plan_copy(case.bound, case.plain), case.checkpoint), reference(case))


@every_layout
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_byte_of_the_target_is_written_exactly_once(id: str, data: st.DataObject) -> None:
    case = data.draw(slices(id))
    plan = plan_copy(case.bound, case.plain)
    written = np.concatenate([offsets(box, "laid") for box in (*plan.copies, *plan.fills)])
    assert np.array_equal(np.sort(written), np.arange(plan.nbytes))
    read = np.concatenate([offsets(box, "plain") for box in plan.copies])
    assert len(np.unique(read)) == read.size == plan.copied
    assert plan.copied + plan.filled == plan.nbytes


@every_layout
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_read_backwards_a_plan_is_its_inverse(id: str, data: st.DataObject) -> None:
    case = data.draw(slices(id))
    plan = plan_copy(case.bound, case.plain)
    laid = execute(plan, case.checkpoint)
    back = case.checkpoint.copy()
    for box in plan.copies:
        back[offsets(box, "plain")] = 0xFF
    for box in plan.copies:
        back[offsets(box, "plain")] = laid[offsets(box, "laid")]
    assert np.array_equal(back, case.checkpoint)


@pytest.mark.parametrize(("id", "run"), [("sep16", 16), ("gui16", 16), ("gurow16", 16), ("plain", 96)])
def test_weights_move_in_units_of_sixteen_bytes(id: str, run: int) -> None:
    bound = LAYOUTS[id].bind(2, 64, 192)
    plan = plan_copy(bound, PlainView(2, 2, 30, 96, 96 * 60, 96, 192))
    assert {box.run for box in plan.copies} == {run}
    assert len(plan.copies) <= 2, "a pad splits an axis in two, not into tiles"


def test_a_last_rank_that_gets_less_lands_in_the_same_room() -> None:
    """2880 intermediate rows over 8 ranks: the last has 192 of 512, the others 384."""
    rank0 = PlainView(1, 2, 384, 32, 5760 * 32, 32, 64, offset=0)
    last = PlainView(1, 2, 192, 32, 5760 * 32, 32, 64, offset=7 * 384 * 64)
    bound = LAYOUTS["sep16"].bind(1, 1024, 32)
    checkpoint = np.random.default_rng(2).integers(0, 127, 5760 * 32, dtype=np.uint8)
    for plain in (rank0, last):
        case = Slice(bound, plain, checkpoint)
        plan = plan_copy(bound, plain)
        assert plan.filled == 2 * (512 - plain.rows) * 32
        assert np.array_equal(execute(plan, checkpoint), reference(case))


@pytest.mark.parametrize(("id", "shape"), [("sep16", (1, 48, 32)), ("e8", (1, 96, 8)), ("n32k4", (1, 96, 4))])
def test_a_tile_that_would_hold_gate_and_up_is_refused(id: str, shape: tuple[int, int, int]) -> None:
    experts, rows, k = shape
    with pytest.raises(LayoutError, match="would span gate and up"):
        plan_copy(LAYOUTS[id].bind(*shape), PlainView(experts, 2, rows // 2, k, rows * k, k, 2 * k))


@pytest.mark.parametrize(("id", "k"), [("e8", 8), ("n32k4", 4)])
def test_a_tile_that_halves_evenly_may_hold_gate_and_up(id: str, k: int) -> None:
    plain = PlainView(1, 2, 13, k, 26 * k, k, 2 * k)
    checkpoint = np.random.default_rng(3).integers(0, 127, 26 * k, dtype=np.uint8)
    case = Slice(LAYOUTS[id].bind(1, 32, k), plain, checkpoint)
    assert np.array_equal(execute(plan_copy(case.bound, plain), checkpoint), reference(case))


@pytest.mark.parametrize(
    "plain",
    [
        PlainView(2, 1, 32, 64, 0, 0, 64),
        PlainView(1, 1, 33, 64, 0, 0, 64),
        PlainView(1, 1, 32, 65, 0, 0, 64),
        PlainView(1, 2, 17, 64, 0, 0, 64),
    ],
)
def test_plain_bytes_that_do_not_fit_are_refused(plain: PlainView) -> None:
    with pytest.raises(LayoutError, match="do not fit into"):
        plan_copy(LAYOUTS["sep16"].bind(1, 32, 64), plain)


def test_rows_that_are_not_two_halves_are_refused() -> None:
    odd = LAYOUTS["sep16"].bind(1, 16, 32)
    with pytest.raises(LayoutError, match="do not split into 3 halves"):
        plan_copy(odd, PlainView(1, 3, 5, 32, 0, 0, 32))
