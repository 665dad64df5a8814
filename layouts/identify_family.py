"""Hypotheses about live bytes: every way in which a loader may have brought plain bytes to where they lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from preshuffle.registry import Layout, LayoutError, Permutation
from preshuffle.registry.words import RowOrder

Fault = Literal[
    "applied_twice",
    "two_layouts",
    "other_kind",
    "element_units",
    "row_order",
    "gate_up_swapped",
    "pad_placement",
    "experts_merged",
    "flat_copy",
    "other_rank",
    "cut_through_groups",
]
"""What a loader did that no kernel expects (or that was not what this rank was meant to hold)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The two sides in bytes.

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
class Step:
    """One layout as it was applied: on how many experts, counting K in units of how many bytes."""

    layout: Layout
    experts: int
    unit: int = 1


@dataclass(frozen=True, slots=True)
class Share:
    """What a rank took: rows of each half, bytes of K, experts; ``ranks`` is (tp rank, tp, ep rank, ep)."""

    rows: tuple[int, int]
    k: tuple[int, int]
    first_expert: int
    ranks: tuple[int, int, int, int]


Write = Literal["GGUU", "UUGG", "GUGU"]
RowPads = Literal["each half", "tail", "head of each half", "head"]
Packing = Literal["expert", "rows", "bytes"]
"""What begins at its own pitch: every expert, or rows (experts follow each other), or only the whole (a flat copy)."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One way from plain bytes to live ones, with what is wrong with it.

    Attributes:
        steps: layouts in the order of their application; empty for plain bytes.
        share: which part of the checkpoint's tensor.
        read: row order in which the loader took the checkpoint's w13.
        write: row order in which it laid the rows down before the layout.
        row_pads: where the pad rows lie.
        k_pad_first: the pad of K lies before the live values.
        packing: what begins at its own pitch.
        faults: what no kernel expects.
    """

    steps: tuple[Step, ...]
    share: Share
    read: RowOrder
    write: Write
    row_pads: RowPads
    k_pad_first: bool
    packing: Packing
    faults: tuple[Fault, ...]

    def predict(self, frame: Frame, positions: torch.Tensor) -> torch.Tensor:
        """Return where plain bytes of physical positions lie in the checkpoint's tensor; -1 for pads.

        Args:
            frame: the two sides.
            positions: row-major positions before any layout (``source`` of live addresses).
        """
        low, high = self.share.k
        live_k, rows = high - low, self.share.rows[1] - self.share.rows[0]
        if self.packing == "bytes":
            row, k = _divide(positions, live_k)
        else:
            row, k = _divide(positions, frame.live_k)
            if self.k_pad_first:
                k = k - (frame.live_k - live_k)
        pitch = frame.live_rows // frame.live_experts if self.packing == "expert" else frame.halves * rows
        expert, row = _divide(row, pitch)
        half, inner = self._split(frame.halves, row, pitch, rows)
        first = self.share.rows[0] + inner
        source = half * frame.half + first if self.read == "GGUU" else frame.halves * first + half
        plain = ((expert + self.share.first_expert) * (frame.halves * frame.half) + source) * frame.k + k + low
        good = (k >= 0) & (k < live_k) & (inner >= 0) & (inner < rows) & (half >= 0) & (half < frame.halves)
        return torch.where(good & (expert < frame.live_experts), plain, -1)

    def _split(self, halves: int, row: torch.Tensor, pitch: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which half a physical row of an expert belongs to, and its number there."""
        if self.write == "GUGU":
            inner, half = _divide(row - (pitch - halves * rows if "head" in self.row_pads else 0), halves)
            return half, inner
        if self.row_pads in ("tail", "head"):
            half, inner = _divide(row - (pitch - halves * rows if self.row_pads == "head" else 0), rows)
        else:
            half, inner = _divide(row, max(pitch // halves, 1))
            if self.row_pads == "head of each half":
                inner = inner - (pitch // halves - rows)
        return (halves - 1 - half if self.write == "UUGG" else half), inner


def source(step: Step, frame: Frame, addresses: torch.Tensor) -> torch.Tensor:
    """Return the position before a layout of the byte at each address after it: the closed form, on tensors."""
    permutation = permutation_of(step, frame)
    units, rest = _divide(addresses, step.unit) if step.unit > 1 else (addresses, torch.zeros_like(addresses))
    position = torch.zeros_like(addresses)
    for size, stride in reversed(permutation.modes):
        units, digit = _divide(units, size)
        position += digit * stride
    return position * step.unit + rest


def permutation_of(step: Step, frame: Frame) -> Permutation:
    """Return a layout's permutation on the live shape.

    Raises:
        LayoutError: the shape does not divide.
    """
    rows = frame.live_rows // step.experts
    if frame.live_rows % step.experts or frame.live_k % step.unit:
        raise LayoutError(f"{frame.live_rows} rows of {frame.live_k} bytes are not those of {step.experts} experts")
    return step.layout.bind(step.experts, rows, frame.live_k // step.unit).permutation


@dataclass(frozen=True, slots=True)
class Family:
    """What hypotheses are made from; the layouts are the book's.

    Attributes:
        frame: the two sides.
        layouts: by id, every layout that may have been applied.
        group_scale: whether the tensor is a scale (its layouts count groups).
        order: the checkpoint's row order; None where nobody said.
        shares: what ranks may have taken, with the faults of each.
    """

    frame: Frame
    layouts: Mapping[str, Layout]
    group_scale: bool
    order: RowOrder | None
    shares: tuple[tuple[Share, tuple[Fault, ...]], ...]

    def hypotheses(self, faults: int) -> list[Hypothesis]:
        """Return every hypothesis with at most so many faults, fewest first."""
        found = [
            Hypothesis(steps, share, read, write, rows, k_first, packing, (*one, *two, *three, *four))
            for steps, one in self._steps()
            if len(one) <= faults
            for share, two in self.shares
            if len(one) + len(two) <= faults
            for packing, rows, k_first, three in self._pads(share, bool(steps))
            if len(one) + len(two) + len(three) <= faults
            for read, write, four in self._orders(rows)
            if len(one) + len(two) + len(three) + len(four) <= faults
        ]
        return sorted(found, key=lambda hypothesis: len(hypothesis.faults))

    def _steps(self) -> Iterator[tuple[tuple[Step, ...], tuple[Fault, ...]]]:
        """Nothing, one layout, or two in a row; on all experts, or on all their rows as if they were one expert's."""
        yield (), ()
        unit = "group" if self.group_scale else "byte"
        own: list[Step] = []
        for layout in self.layouts.values():
            kind: tuple[Fault, ...] = () if layout.unit in (unit, "any") else ("other_kind",)
            step = Step(layout, self.frame.live_experts)
            if self._moves(step):
                yield (step,), kind
                own += [] if kind else [step]
            flat = Step(layout, 1)
            if self.frame.live_experts > 1 and not kind and self._moves(flat) and not self._same(step, flat):
                yield (flat,), () if not self.frame.expert_axis else ("experts_merged",)
            wide = Step(layout, self.frame.live_experts, self.frame.item)
            if self.frame.item > 1 and not kind and self._moves(wide):
                yield (wide,), ("element_units",)
        for first in own:
            for second in own:
                yield (first, second), ("applied_twice" if first == second else "two_layouts",)

    def _moves(self, step: Step) -> bool:
        try:
            return permutation_of(step, self.frame).modes != Permutation.identity(self.frame.nbytes // step.unit).modes
        except LayoutError:
            return False

    def _same(self, one: Step, other: Step) -> bool:
        try:
            return permutation_of(one, self.frame) == permutation_of(other, self.frame)
        except LayoutError:
            return False

    def _pads(self, share: Share, laid: bool) -> Iterator[tuple[Packing, RowPads, bool, tuple[Fault, ...]]]:
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


def _divide(values: torch.Tensor, by: int) -> tuple[torch.Tensor, torch.Tensor]:
    quotient = torch.div(values, by, rounding_mode="floor")
    return quotient, values - quotient * by
