"""Hypotheses of how a loader moved plain bytes to live ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

import torch

from preshuffle.registry import Layout, LayoutError, Permutation
from preshuffle.registry.base.words import RowOrder

Fault = Literal[
    "applied_twice", "two_layouts", "other_kind", "element_units", "row_order", "gate_up_swapped", "pad_placement",
    "experts_merged", "flat_copy", "other_rank", "cut_through_groups", "rows_missed", "other_cut", "mixed_experts",
    "other_slot",
]  # fmt: skip
"""Mistakes of a loader: bytes that no kernel expects, or that another rank should hold."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Byte sizes of a checkpoint tensor and its live counterpart.

    Attributes:
        experts: of the checkpoint's tensor.
        halves: 2 where its rows are gate and up.
        half: rows of one half.
        k: bytes of a row.
        item: bytes of an element.
        live_experts: experts that the live tensor holds.
        live_rows: rows of all its experts together.
        live_k: bytes of a row there.
        expert_axis: whether its shape has the experts as an axis of its own.
        nbytes: live bytes.
    """

    experts: int
    halves: int
    half: int
    k: int
    item: int
    live_experts: int
    live_rows: int
    live_k: int
    expert_axis: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the live tensor."""
        return self.live_rows * self.live_k


@dataclass(frozen=True, slots=True)
class AppliedLayout:
    """Layout as a loader applied it.

    Attributes:
        layout: the book's layout.
        experts: how many experts it was bound to.
        unit: bytes that the loader counted as one unit of K.
    """

    layout: Layout
    experts: int
    unit: int = 1


Chain = tuple[AppliedLayout, ...]
"""Layouts in the order of their application; empty for plain bytes."""


@dataclass(frozen=True, slots=True)
class RankShare:
    """Part of a tensor that one rank took.

    Rows of each half, bytes of K, experts; ``ranks`` is (tp rank, tp, ep rank, ep). ``by_buffer`` is whether slices are
    of the size of a rank's buffer (whole blocks, padded) and not of whole groups.
    """

    rows: tuple[int, int]
    k: tuple[int, int]
    first_expert: int
    ranks: tuple[int, int, int, int]
    by_buffer: bool = False


Write = Literal["GGUU", "UUGG", "GUGU"]
RowPads = Literal["each half", "tail", "head of each half", "head"]
Packing = Literal["expert", "rows", "bytes"]
"""What is padded: every expert, every row (experts follow each other), or only the end of a flat copy."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One way from plain bytes to live ones, with its faults.

    Attributes:
        steps: the layouts that were applied.
        share: which part of the checkpoint's tensor.
        read: row order in which the loader took the checkpoint's w13.
        write: row order in which it laid the rows down before the layout.
        row_pads: where the pad rows lie.
        k_pad_first: the pad of K lies before the live values.
        packing: what is padded.
        faults: what no kernel expects.
    """

    steps: Chain
    share: RankShare
    read: RowOrder
    write: Write
    row_pads: RowPads
    k_pad_first: bool
    packing: Packing
    faults: tuple[Fault, ...]

    def numbers(self, frame: Frame) -> tuple[int, ...]:
        """Return the hypothesis as numbers, in the order that ``Predictions`` unpacks."""
        low, high = self.share.k
        first, last = self.share.rows
        rows, halves = last - first, frame.halves
        pitch = frame.live_rows // frame.live_experts if self.packing == "expert" else halves * rows
        spare = pitch - halves * rows
        block = pitch // halves if "half" in self.row_pads else rows
        alternating = self.write == "GUGU"
        return (
            high - low if self.packing == "bytes" else frame.live_k,
            frame.live_k - (high - low) if self.k_pad_first else 0,
            high - low,
            low,
            pitch,
            spare if self.row_pads == "head" else 0,
            halves if alternating else max(block, 1),
            int(alternating),
            block - rows if self.row_pads == "head of each half" and not alternating else 0,
            rows,
            int(self.write == "UUGG"),
            frame.half if self.read == "GGUU" else 1,
            1 if self.read == "GGUU" else halves,
            self.share.first_expert * halves * frame.half + first * (1 if self.read == "GGUU" else halves),
        )


class Predictions:
    """Source positions that many hypotheses predict for live bytes.

    Computed for all hypotheses at once.
    """

    def __init__(self, frame: Frame, hypotheses: Sequence[Hypothesis]) -> None:
        """Collect the hypotheses' numbers."""
        self.frame = frame
        self.hypotheses = tuple(hypotheses)
        self._numbers = torch.tensor([one.numbers(frame) for one in self.hypotheses], dtype=torch.int64)

    def keep(self, selected: torch.Tensor) -> Predictions:
        """Return the predictions of selected hypotheses.

        ``selected`` holds a bool for each.
        """
        return Predictions(self.frame, [self.hypotheses[number] for number in selected.nonzero().flatten().tolist()])

    def of(self, addresses: torch.Tensor) -> torch.Tensor:
        """Return plain positions of live addresses ``[hypotheses, addresses]``.

        -1 stands for pads.
        """
        frame = self.frame
        place: dict[Chain, int] = {}
        chain = torch.tensor([place.setdefault(one.steps, len(place)) for one in self.hypotheses])
        undone: dict[Chain, torch.Tensor] = {(): addresses}
        position = torch.stack([_undo_chain(steps, frame, undone) for steps in place])[chain]
        (
            width, k_lead, share_k, k_first, pitch, lead, block, alternating, half_lead, rows, swapped,
            half_step, row_step, first,
        ) = self._numbers.T.unsqueeze(2)  # fmt: skip
        row, k = _divide(position, width)
        k = k - k_lead
        expert, row = _divide(row, pitch)
        outer, rest = _divide(row - lead, block)
        half = torch.where(alternating == 1, rest, outer)
        inner = torch.where(alternating == 1, outer, rest) - half_lead
        good = (k >= 0) & (k < share_k) & (inner >= 0) & (inner < rows) & (half >= 0) & (half < frame.halves)
        half = torch.where(swapped == 1, frame.halves - 1 - half, half)
        source = expert * (frame.halves * frame.half) + first + half * half_step + inner * row_step
        return torch.where(good & (expert < frame.live_experts), source * frame.k + k + k_first, -1)


def _undo_chain(chain: Chain, frame: Frame, undone: dict[Chain, torch.Tensor]) -> torch.Tensor:
    """Return the addresses before a chain of layouts, with a cache of suffixes."""
    if chain not in undone:
        undone[chain] = _undo_layout(chain[0], frame, _undo_chain(chain[1:], frame, undone))
    return undone[chain]


def _undo_layout(step: AppliedLayout, frame: Frame, addresses: torch.Tensor) -> torch.Tensor:
    """Return the addresses before one layout, in closed form."""
    units, rest = _divide(addresses, step.unit)
    position = rest
    for size, stride in reversed(permutation_of(step, frame).modes):
        units, digit = _divide(units, size)
        position = position + digit * (stride * step.unit)
    return position


# Process-wide: a pure function of frozen values that every window repeats.
@lru_cache(maxsize=256)
def permutation_of(step: AppliedLayout, frame: Frame) -> Permutation:
    """Return a layout's permutation on the live shape.

    Raises:
        LayoutError: the shape does not divide.
    """
    rows = frame.live_rows // step.experts
    if frame.live_rows % step.experts or frame.live_k % step.unit:
        raise LayoutError(f"{frame.live_rows} rows of {frame.live_k} bytes are not those of {step.experts} experts")
    return step.layout.bind(step.experts, rows, frame.live_k // step.unit).permutation


@dataclass(frozen=True, slots=True)
class HypothesisSpace:
    """Generator of hypotheses from the book's layouts.

    Attributes:
        frame: the two sides.
        layouts: by id, every layout that may have been applied.
        group_scale: whether the tensor is a scale (its layouts count groups).
        order: the checkpoint's row order; None where it is unknown.
        shares: what ranks may have taken, with the faults of each.
    """

    frame: Frame
    layouts: Mapping[str, Layout]
    group_scale: bool
    order: RowOrder | None
    shares: tuple[tuple[RankShare, tuple[Fault, ...]], ...]

    def hypotheses(self, faults: int, of: RankShare | None = None) -> list[Hypothesis]:
        """Return every hypothesis with a given number of faults.

        Of one rank's share only, where it is given.
        """
        found: list[Hypothesis] = []
        for (steps, one), (share, two) in product(self._steps(), self.shares):
            if len(one) + len(two) > faults or (of is not None and share != of):
                continue
            for packing, rows, k_first, three in self._pads(share, bool(steps)):
                for read, write, four in self._orders(rows):
                    wrong = (*one, *two, *three, *four)
                    if len(wrong) == faults:
                        found.append(Hypothesis(steps, share, read, write, rows, k_first, packing, wrong))
        return found

    def _steps(self) -> Iterator[tuple[Chain, tuple[Fault, ...]]]:
        """Yield chains of up to two layouts, per expert or merged, with faults."""
        yield (), ()
        unit = "group" if self.group_scale else "byte"
        own: list[AppliedLayout] = []
        for layout in self.layouts.values():
            kind: tuple[Fault, ...] = () if layout.unit in (unit, "any") else ("other_kind",)
            step = AppliedLayout(layout, self.frame.live_experts)
            pattern = layout.pattern
            if pattern.memory != (*pattern.experts, *pattern.rows, *pattern.k) and self._binds(step):
                yield (step,), kind
                own += [step] if not kind and self._moves(step) else []
            flat = AppliedLayout(layout, 1)
            if self.frame.live_experts > 1 and not kind and self._moves(flat) and not self._same(step, flat):
                yield (flat,), () if not self.frame.expert_axis else ("experts_merged",)
            wide = AppliedLayout(layout, self.frame.live_experts, self.frame.item)
            if self.frame.item > 1 and not kind and self._moves(wide):
                yield (wide,), ("element_units",)
        for first in own:
            for second in own:
                yield (first, second), ("applied_twice" if first == second else "two_layouts",)

    def _binds(self, step: AppliedLayout) -> bool:
        try:
            permutation_of(step, self.frame)
        except LayoutError:
            return False
        return True

    def _moves(self, step: AppliedLayout) -> bool:
        count = self.frame.nbytes // step.unit
        return self._binds(step) and permutation_of(step, self.frame) != Permutation.identity(count)

    def _same(self, one: AppliedLayout, other: AppliedLayout) -> bool:
        return self._binds(one) and permutation_of(one, self.frame) == permutation_of(other, self.frame)

    def _pads(self, share: RankShare, laid: bool) -> Iterator[tuple[Packing, RowPads, bool, tuple[Fault, ...]]]:
        frame = self.frame
        rows, k = frame.halves * (share.rows[1] - share.rows[0]), share.k[1] - share.k[0]
        k_pads: list[tuple[bool, tuple[Fault, ...]]] = [(False, ())]
        if k < frame.live_k:
            k_pads.append((True, ("pad_placement",)))
        pitch, rest = divmod(frame.live_rows, frame.live_experts)
        for k_first, fault in k_pads if k <= frame.live_k else ():
            if not rest and rows <= pitch:
                for where, wrong in self._row_pads(rows, pitch):
                    yield "expert", where, k_first, (*fault, *wrong)
            if frame.live_experts * rows <= frame.live_rows and (rest or rows != pitch):
                packed: tuple[Fault, ...] = ("pad_placement",) if frame.expert_axis else ()
                yield "rows", "tail", k_first, (*fault, *packed)
        padded = (rows, k) != (pitch, frame.live_k)
        if not laid and padded and frame.live_experts * rows * k <= frame.nbytes:
            yield "bytes", "tail", False, ("flat_copy",)

    def _row_pads(self, rows: int, pitch: int) -> Iterator[tuple[RowPads, tuple[Fault, ...]]]:
        even = pitch % self.frame.halves == 0
        if even:
            yield "each half", ()
        if rows == pitch:
            return
        if self.frame.halves > 1:
            yield "tail", ("pad_placement",)
            if even:
                yield "head of each half", ("pad_placement",)
        yield "head", ("pad_placement",)

    def _orders(self, pads: RowPads) -> Iterable[tuple[RowOrder, Write, tuple[Fault, ...]]]:
        if self.frame.halves == 1:
            return [("GGUU", "GGUU", ())]
        reads: tuple[RowOrder, ...] = ("GGUU", "GUGU") if self.order != "GUGU" else ("GUGU", "GGUU")
        found: list[tuple[RowOrder, Write, tuple[Fault, ...]]] = []
        for read in reads:
            wrong: tuple[Fault, ...] = () if self.order in (read, None) else ("row_order",)
            found.append((read, "GGUU", wrong))
            found.append((read, "UUGG", (*wrong, "gate_up_swapped")))
            if "half" not in pads or pads == "each half":
                found.append((read, "GUGU", (*wrong, "row_order") if not wrong else ("row_order", "row_order")))
        return found


def _divide(values: torch.Tensor, by: torch.Tensor | int) -> tuple[torch.Tensor, torch.Tensor]:
    quotient = torch.div(values, by, rounding_mode="floor")
    return quotient, values - quotient * by
