"""Geometry that relates a tensor's plain rows to its laid-out bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from preshuffle.layouts.loader.single import layout_from, layout_of
from preshuffle.layouts.moves import InPlace
from preshuffle.layouts.stamps import Stamp
from preshuffle.registry import BoundLayout, CopyPlan, Layout, PlainView, TensorDecision, plan_copy
from preshuffle.registry.algebra.copy_plan import plan_part


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of one tensor's plain and laid-out bytes.

    Everything is in bytes and in torch's own shapes.

    Attributes:
        alternating: plain rows are GUGU.
        padded_source: the plain bytes have the physical size, pads included.
        alternates: laid-out rows are GUGU, whatever the layout does with them.
    """

    layout: Layout
    experts: int
    halves: int
    live_rows: int
    live_k: int
    rows: int
    k: int
    alternating: bool
    padded_source: bool
    alternates: bool = False

    @staticmethod
    def of(stamp: Stamp, item: int) -> Geometry:
        """Derive the geometry from a stamp and an element's bytes.

        Where tiles run over experts, or the tail is padded, it is that of ``[experts * rows, K]``; ``staged`` then says
        how those rows are made.
        """
        if stamp.flat_rows is None:
            return _by_expert(stamp, item)
        live = stamp.shape[0] * stamp.flat_rows
        rows = stamp.physical_shape[0] if len(stamp.physical_shape) == 2 else live
        k = stamp.physical_shape[-1] * item
        return Geometry(layout_from(stamp), 1, 1, live, k, rows, k, False, False)

    @staticmethod
    def staged(stamp: Stamp, item: int) -> Geometry | None:
        """Return the geometry of the first of two moves, or None.

        It makes plain rows into ``[experts * rows, K]``, each expert padded; None where one move is enough.
        """
        if stamp.flat_rows is None:
            return None
        physical = (stamp.shape[0], stamp.flat_rows, stamp.physical_shape[-1])
        return _by_expert(replace(stamp, layout="plain", layout_line=None, physical_shape=physical), item)

    def by_way_of_rows(self) -> tuple[Geometry, Geometry]:
        """Return the same move as two, by way of padded plain rows.

        Rows of gate come first there. Between them a part of the pads can be given another byte.
        """
        first = replace(self, layout=layout_of("plain"), alternates=False)
        second = replace(self, live_rows=self.rows, live_k=self.k, alternating=False, padded_source=True)
        return first, second

    def bound(self, experts: int, layout: Layout | None = None) -> BoundLayout:
        """Bind a layout to some experts of the tensor.

        The tensor's own layout by default.
        """
        bound = (layout or self.layout).bind(experts, self.halves * self.rows, self.k)
        return bound.alternating() if self.alternates else bound

    def plan(self, experts: int) -> CopyPlan:
        """Plan the move of some neighbouring experts."""
        return _plan(self, experts)

    def plan_rows(self, row: int, half: int | None = None) -> CopyPlan:
        """Plan the move of one expert's live rows, without pads.

        Args:
            row: bytes from one plain row to the next.
            half: which half they are; None for all rows of the expert, in the checkpoint's order.
        """
        return _plan_rows(self, row, half)

    def plan_for(self, layout: Layout, experts: int) -> CopyPlan:
        """Plan the same move into another layout."""
        return _plan(replace(self, layout=layout), experts)

    @property
    def expert_bytes(self) -> int:
        """Laid-out bytes of one expert."""
        return self.halves * self.rows * self.k

    @property
    def in_place(self) -> InPlace:
        """In-place move of a buffer of the physical size."""
        return _in_place(self)


def sizes_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return ``(experts, rows, K)``; missing dimensions are 1."""
    experts, rows, k = (*shape, 1, 1)[:3]
    return experts, rows, k


def plan_geometry(stamp: Stamp, item: int) -> tuple[Geometry, Geometry | None]:
    """Plan a tensor's move.

    Returns its geometry, and that of the move before it that pads plain rows, or None.

    Raises:
        LayoutError: the shape does not fit the layout.
    """
    geometry, stage = Geometry.of(stamp, item), Geometry.staged(stamp, item)
    if stamp.tail is not None and stage is None:
        stage, geometry = geometry.by_way_of_rows()
    geometry.plan(1)
    if stage is not None:
        stage.plan(1)
    return geometry, stage


def flat_rows_of(decided: TensorDecision) -> int | None:
    """Return one expert's padded rows, where tiles span experts.

    So it is where tiles, or the padded tail, run over experts; None where each expert is whole.
    """
    layout = layout_from(decided)
    if layout.unit != "group" or len(decided.logical_shape) != 3 or layout.pattern.splits_gate_up:
        return None
    experts, rows, _ = decided.logical_shape
    flat = rows + decided.pad.rows * (2 if decided.order else 1)
    padded_tail = len(decided.physical_shape) == 2 and decided.physical_shape[0] != experts * flat
    return flat if padded_tail or flat % layout.pattern.row_tile else None


def _by_expert(stamp: Stamp, item: int) -> Geometry:
    halves = 2 if stamp.order else 1
    experts, live_rows, live_k = sizes_of(stamp.shape)
    _, rows, k = sizes_of(stamp.physical_shape)
    if len(stamp.physical_shape) == 2 and len(stamp.shape) == 3:  # K alone is padded at the tail
        rows, k = stamp.physical_shape[0] // experts, stamp.physical_shape[1]
    packed = 2 if "pack_int4" in stamp.steps else 1
    return Geometry(
        layout=layout_from(stamp),
        experts=experts,
        halves=halves,
        live_rows=live_rows // halves,
        live_k=live_k * item,
        rows=rows // halves,
        k=k * item * packed,
        alternating=halves == 2 and stamp.source_order == "GUGU",
        padded_source=stamp.padded_source,
        alternates=stamp.order == "GUGU",
    )


# Process-wide: a pure function of frozen values that every layer repeats.
@lru_cache(maxsize=1024)
def _in_place(geometry: Geometry) -> InPlace:
    if not geometry.padded_source:
        return InPlace(lru_cache(maxsize=4)(geometry.plan), geometry.experts, geometry.expert_bytes)
    with_pads = replace(geometry, live_rows=geometry.rows, live_k=geometry.k)
    plans = (lru_cache(maxsize=4)(one.plan) for one in (geometry, with_pads))
    return InPlace(next(plans), geometry.experts, geometry.expert_bytes, next(plans))


# Process-wide: a pure function of frozen values that every layer repeats.
@lru_cache(maxsize=1024)
def _plan(geometry: Geometry, experts: int) -> CopyPlan:
    padded, live = (geometry.rows, geometry.k), (geometry.live_rows, geometry.live_k)
    rows, row = padded if geometry.padded_source else live
    half, step = (row, geometry.halves * row) if geometry.alternating else (rows * row, row)
    view = PlainView(experts, geometry.halves, *live, geometry.halves * rows * row, half, step)
    return plan_copy(geometry.bound(experts), view)


# Process-wide: a pure function of frozen values that every expert repeats.
@lru_cache(maxsize=1024)
def _plan_rows(geometry: Geometry, row: int, half: int | None) -> CopyPlan:
    halves, live = geometry.halves, (geometry.live_rows, geometry.live_k)
    if half is None:
        first, step = (row, halves * row) if geometry.alternating else (live[0] * row, row)
        view = PlainView(1, halves, *live, 0, first, step)
    else:
        view = PlainView(1, 1, *live, 0, 0, row, first=(0, half, 0, 0))
    return plan_part(geometry.bound(1), view, halves)
