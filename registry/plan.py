"""Copy plans: which runs of plain bytes go where, pads, row order and slices included, in one pass.

A plan is a list of strided boxes. Each box is one n-dimensional copy (or fill) that any machine does well: the widest
unit is the innermost run that both sides share. The same plan read the other way is the inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from preshuffle.registry.errors import LayoutError
from preshuffle.registry.layout import Atom, BoundLayout


@dataclass(frozen=True, slots=True)
class PlainView:
    """How live plain bytes lie in their own buffer: ``experts x halves x rows x k`` bytes, with strides in bytes.

    ``halves`` is 2 for w13 (gate and up), else 1. A checkpoint whose rows are GUGU has ``half_stride`` = one row and
    ``row_stride`` = two rows; GGUU has ``half_stride`` = all rows of a half. ``offset`` starts a tensor-parallel slice.
    """

    experts: int
    halves: int
    rows: int
    k: int
    expert_stride: int
    half_stride: int
    row_stride: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Box:
    """One strided copy: sizes, and for each side strides and an offset, all in bytes."""

    sizes: tuple[int, ...]
    plain_strides: tuple[int, ...]
    laid_strides: tuple[int, ...]
    plain_offset: int
    laid_offset: int

    @property
    def nbytes(self) -> int:
        """Bytes that the box holds."""
        return prod(self.sizes)

    @property
    def run(self) -> int:
        """Bytes that lie together on both sides: the innermost contiguous run."""
        if self.sizes and self.plain_strides[-1] == self.laid_strides[-1] == 1:
            return self.sizes[-1]
        return 1


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What to copy and what to fill so that plain bytes become laid-out bytes (or, read backwards, plain again)."""

    copies: tuple[Box, ...]
    fills: tuple[Box, ...]
    nbytes: int

    @property
    def copied(self) -> int:
        """Live bytes."""
        return sum(box.nbytes for box in self.copies)

    @property
    def filled(self) -> int:
        """Pad bytes."""
        return sum(box.nbytes for box in self.fills)


@dataclass(frozen=True, slots=True)
class _Digit:
    """An atom cut at the half boundary, with its stride on the laid-out side."""

    axis: str  # experts | halves | rows | k
    size: int
    step: int
    laid: int


def plan_copy(bound: BoundLayout, plain: PlainView) -> CopyPlan:
    """Plan the one pass from ``plain`` into ``bound`` (whose K counts bytes).

    The physical rows are ``halves`` blocks of equal size; each half is padded on its own, K at its end.

    Raises:
        LayoutError: the plain bytes do not fit, or a tile would span both halves of the rows.
    """
    experts, rows, k = bound.shape
    if rows % plain.halves:
        raise LayoutError(f"{rows} rows do not split into {plain.halves} halves")
    half = rows // plain.halves
    if plain.experts != experts or plain.rows > half or plain.k > k:
        live, room = (plain.experts, plain.rows, plain.k), (experts, half, k)
        raise LayoutError(f"plain bytes of (experts, rows per half, K) = {live} do not fit into {room}")
    digits = _digits(bound.atoms, half)
    by_axis = {axis: [digit for digit in digits if digit.axis == axis] for axis in ("experts", "halves", "rows", "k")}
    live_rows, pad_rows = _cut(by_axis["rows"], plain.rows)
    live_k, pad_k = _cut(by_axis["k"], plain.k)
    whole = [*by_axis["experts"], *by_axis["halves"]]
    strides = {"experts": plain.expert_stride, "halves": plain.half_stride, "rows": plain.row_stride, "k": 1}

    def boxes(rows_in: Sequence[_Ranges], k_in: Sequence[_Ranges]) -> tuple[Box, ...]:
        return tuple(_box(digits, whole, {**r, **c}, strides, plain.offset) for r, c in product(rows_in, k_in))

    everything = [_full(by_axis["k"])]
    copies = boxes(live_rows, live_k)
    fills = boxes(pad_rows, everything) + boxes(live_rows, pad_k)
    return CopyPlan(copies, fills, experts * rows * k)


_Ranges = dict[_Digit, tuple[int, int]]


def _digits(atoms: Sequence[Atom], half: int) -> list[_Digit]:
    """Cut the row atoms at the half boundary and give every digit its laid-out stride; memory order is kept."""
    digits: list[_Digit] = []
    for atom in atoms:
        if atom.dimension != "rows":
            digits.append(_Digit(atom.dimension, atom.size, atom.step, 0))
            continue
        inner = 1 if atom.step >= half else min(atom.size, half // atom.step)
        if atom.step % half if atom.step >= half else (half % atom.step or atom.size % inner):
            raise LayoutError(f"a tile of {atom.step * atom.size} rows would span gate and up ({half} rows each)")
        if atom.size > inner:
            digits.append(_Digit("halves", atom.size // inner, max(atom.step // half, 1), 0))
        if inner > 1:
            digits.append(_Digit("rows", inner, atom.step, 0))
    laid = 1
    placed: list[_Digit] = []
    for digit in reversed(digits):
        placed.append(_Digit(digit.axis, digit.size, digit.step, laid))
        laid *= digit.size
    return placed[::-1]


def _full(digits: Sequence[_Digit]) -> _Ranges:
    return {digit: (0, digit.size) for digit in digits}


def _cut(digits: Sequence[_Digit], limit: int) -> tuple[list[_Ranges], list[_Ranges]]:
    """Split an axis, given as mixed-radix digits, into boxes below ``limit`` and boxes from it on."""
    order = sorted(digits, key=lambda digit: digit.step, reverse=True)
    total = prod(digit.size for digit in order)
    if limit >= total:
        return [_full(order)], []
    if limit <= 0:
        return [], [_full(order)]
    first, rest = order[0], order[1:]
    whole, remainder = divmod(limit, first.step)
    inside: list[_Ranges] = [{first: (0, whole), **_full(rest)}] if whole else []
    outside: list[_Ranges] = []
    if remainder:
        below, above = _cut(rest, remainder)
        inside += [{first: (whole, 1), **ranges} for ranges in below]
        outside += [{first: (whole, 1), **ranges} for ranges in above]
    begin = whole + bool(remainder)
    if begin < first.size:
        outside.append({first: (begin, first.size - begin), **_full(rest)})
    return inside, outside


def _box(
    digits: Sequence[_Digit], whole: Sequence[_Digit], ranges: _Ranges, strides: dict[str, int], offset: int
) -> Box:
    """Turn ranges per digit into one box, neighbours that continue each other on both sides merged."""
    ranges = {**_full(whole), **ranges}
    laid_offset = 0
    merged: list[tuple[int, int, int]] = []
    for digit in digits:
        begin, size = ranges[digit]
        plain = digit.step * strides[digit.axis]
        offset += begin * plain
        laid_offset += begin * digit.laid
        if size == 1:
            continue
        if merged and merged[-1][1] == size * plain and merged[-1][2] == size * digit.laid:
            size *= merged.pop()[0]
        merged.append((size, plain, digit.laid))
    sizes, plains, laids = zip(*merged, strict=True) if merged else ((), (), ())
    return Box(sizes, plains, laids, offset, laid_offset)
