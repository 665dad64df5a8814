"""Copy plans: strided copies and fills that lay plain bytes out.

Pads, row order and slices are part of the one pass.

A plan is a list of strided boxes. Each box is one n-dimensional copy (or fill) that any machine does well: the widest
unit is the innermost run that both sides share. The same plan read the other way is the inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd, prod

from preshuffle.registry.algebra.layout import Atom, BoundLayout
from preshuffle.registry.base.errors import LayoutError


@dataclass(frozen=True, slots=True)
class PlainView:
    """Byte strides of plain ``[experts, halves, rows, k]`` data.

    ``halves`` is 2 for w13 (gate and up), else 1. A checkpoint whose rows are GUGU has ``half_stride`` = one row and
    ``row_stride`` = two rows; GGUU has ``half_stride`` = all rows of a half. ``offset`` starts a tensor-parallel slice.
    The ``first`` expert, half, row (of a half) and byte of K say where in the layout the bytes belong, so that a part
    of a tensor can be written alone; pads lie behind the live bytes of a whole tensor only.
    """

    experts: int
    halves: int
    rows: int
    k: int
    expert_stride: int
    half_stride: int
    row_stride: int
    offset: int = 0
    first: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Box:
    """One strided copy: sizes, strides and offsets in bytes."""

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

    @property
    def unit(self) -> int:
        """Bytes that can be moved at once, at most 16.

        Both buffers begin at multiples of 16.
        """
        inner = 1 if self.run > 1 else 0
        outer = len(self.sizes) - inner
        numbers = (*self.plain_strides[:outer], *self.laid_strides[:outer], self.plain_offset, self.laid_offset)
        return gcd(16, self.run, *numbers)

    @property
    def band(self) -> int:
        """Bytes of the smallest block that the copy permutes within itself.

        All bytes where there is no such block.
        """
        band = self.nbytes
        for index, size in enumerate(self.sizes):
            if self.plain_strides[index] != self.laid_strides[index] or self.laid_strides[index] * size != band:
                break
            band //= size
        return band


@dataclass(frozen=True, slots=True)
class PaddedBox:
    """All laid-out bytes as one strided box, with bounds of pads.

    Attributes:
        box: sizes and strides as if no byte were a pad; the plain side is not read behind the bounds.
        rows: of each axis, by how much one step raises the row within its half.
        k: of each axis, by how much one step raises the byte of K.
        live_rows: live rows of a half.
        live_k: live bytes of a row.
    """

    box: Box
    rows: tuple[int, ...]
    k: tuple[int, ...]
    live_rows: int
    live_k: int


@dataclass(frozen=True, slots=True, eq=False)
class CopyPlan:
    """Copies and fills that turn plain bytes into laid-out bytes.

    Read backwards, the same plan makes them plain again. Plans are compared and hashed by identity, so that what is
    derived from one can be cached.

    Attributes:
        copies: boxes of live bytes.
        fills: boxes of pads.
        nbytes: of the laid-out side.
        padded: copies and fills as one box; None where there are no pads.
    """

    copies: tuple[Box, ...]
    fills: tuple[Box, ...]
    nbytes: int
    padded: PaddedBox | None = None

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
    if any(plain.first):
        raise LayoutError("a part of a tensor is written with plan_part")
    experts, rows, k = bound.shape
    if plain.experts != experts:
        raise LayoutError(f"plain bytes of {plain.experts} experts do not fit into {experts}")
    part = _Part.of(bound, plain, plain.halves)
    live_rows, live_k = part.inside("rows", plain.rows), part.inside("k", plain.k)
    pad_rows, pad_k = part.outside("rows", plain.rows), part.outside("k", plain.k)
    everything = [_full(part.axis("k"))]
    copies = part.boxes(live_rows, live_k)
    fills = part.boxes(pad_rows, everything) + part.boxes(live_rows, pad_k)
    return CopyPlan(copies, fills, experts * rows * k, part.padded(plain.rows, plain.k) if fills else None)


def plan_relayout(source: BoundLayout, target: BoundLayout) -> CopyPlan:
    """Plan the pass from one layout (the plain side) to another.

    Raises:
        LayoutError: the shapes differ, or the tiles of the two layouts cut each other.
    """
    modes = source.relayout(target).modes
    laid = [prod(mode.size for mode in modes[index + 1 :]) for index in range(len(modes))]
    box = Box(tuple(mode.size for mode in modes), tuple(mode.stride for mode in modes), tuple(laid), 0, 0)
    return CopyPlan((box,), (), prod(source.shape))


def plan_part(bound: BoundLayout, plain: PlainView, halves: int) -> CopyPlan:
    """Plan writing a part of a tensor, without pads.

    The part is some experts, halves, rows and bytes of K, from ``plain.first`` on.

    Args:
        bound: the whole tensor.
        plain: the part; ``plain.halves`` is how many halves it has.
        halves: of the whole tensor.

    Raises:
        LayoutError: the part is not inside the tensor.
    """
    part = _Part.of(bound, plain, halves)
    sizes = (plain.experts, plain.halves, plain.rows, plain.k)
    ranges: list[list[_Ranges]] = []
    for axis, first, size in zip(_AXES, plain.first, sizes, strict=True):
        digits = part.axis(axis)
        total = prod(digit.size for digit in digits)
        if first < 0 or size < 1 or first + size > total:
            raise LayoutError(f"{axis} {first}..{first + size - 1} are not inside 0..{total - 1}")
        ranges.append(_between(_ordered(digits), first, first + size))
    return CopyPlan(part.boxes(*ranges), (), bound.shape[0] * bound.shape[1] * bound.shape[2])


@dataclass(frozen=True, slots=True)
class _Part:
    """A bound layout's digits beside the plain side's strides."""

    digits: tuple[_Digit, ...]
    strides: dict[str, int]
    offset: int

    @staticmethod
    def of(bound: BoundLayout, plain: PlainView, halves: int) -> _Part:
        _, rows, k = bound.shape
        if rows % halves:
            raise LayoutError(f"{rows} rows do not split into {halves} halves")
        half = rows // halves
        if plain.rows > half or plain.k > k:
            live, room = (plain.rows, plain.k), (half, k)
            raise LayoutError(f"plain bytes of (rows per half, K) = {live} do not fit into {room}")
        strides = dict(zip(_AXES, (plain.expert_stride, plain.half_stride, plain.row_stride, 1), strict=True))
        start = sum(first * stride for first, stride in zip(plain.first, strides.values(), strict=True))
        return _Part(tuple(_digits(bound.atoms, half)), strides, plain.offset - start)

    def axis(self, name: str) -> list[_Digit]:
        return [digit for digit in self.digits if digit.axis == name]

    def inside(self, name: str, limit: int) -> list[_Ranges]:
        return _between(_ordered(self.axis(name)), 0, limit)

    def outside(self, name: str, limit: int) -> list[_Ranges]:
        digits = _ordered(self.axis(name))
        return _between(digits, limit, prod(digit.size for digit in digits))

    def boxes(self, *choices: Sequence[_Ranges]) -> tuple[Box, ...]:
        """One box for each combination of ranges; digits that no choice names are taken whole."""
        boxes: list[Box] = []
        for chosen in product(*choices):
            ranges = _full(self.digits)
            for one in chosen:
                ranges |= one
            boxes.append(_box(self.digits, ranges, self.strides, self.offset))
        return tuple(boxes)

    def padded(self, live_rows: int, live_k: int) -> PaddedBox:
        """All digits as one box, neighbours that continue each other merged."""
        merged: list[tuple[int, int, int, int, int]] = []
        for digit in self.digits:
            rows, k = (digit.step if digit.axis == axis else 0 for axis in ("rows", "k"))
            size, steps = digit.size, (digit.step * self.strides[digit.axis], digit.laid, rows, k)
            if size == 1:
                continue
            if merged and merged[-1][1:] == tuple(size * step for step in steps):
                size *= merged.pop()[0]
            merged.append((size, *steps))
        sizes, plains, laids, rows_of, k_of = zip(*merged, strict=True) if merged else ((),) * 5
        return PaddedBox(Box(sizes, plains, laids, self.offset, 0), rows_of, k_of, live_rows, live_k)


_Ranges = dict[_Digit, tuple[int, int]]
_AXES = ("experts", "halves", "rows", "k")


def _digits(atoms: Sequence[Atom], half: int) -> list[_Digit]:
    """Cut the row atoms at the half boundary and give every digit its laid-out stride; memory order is kept."""
    digits: list[_Digit] = []
    for atom in atoms:
        if atom.dimension != "rows":
            digits.append(_Digit(atom.dimension, atom.size, atom.step, 0))
            continue
        inner = 1 if atom.step >= half else min(atom.size, half // atom.step)
        if atom.step % half if atom.step >= half else (half % atom.step or atom.size % inner):
            tile = atom.step if half % atom.step else atom.step * atom.size
            raise LayoutError(f"a tile of {tile} rows would span gate and up ({half} rows each)")
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


def _ordered(digits: Sequence[_Digit]) -> list[_Digit]:
    return sorted(digits, key=lambda digit: digit.step, reverse=True)


def _between(digits: Sequence[_Digit], low: int, high: int) -> list[_Ranges]:
    """Cover ``low <= value < high`` of an axis, given as mixed-radix digits from the outermost, with boxes."""
    if low >= high:
        return []
    if not digits:
        return [{}]
    first, rest = digits[0], digits[1:]
    begin, above = divmod(low, first.step)
    end, below = divmod(high, first.step)
    if begin == end:
        return [{first: (begin, 1), **ranges} for ranges in _between(rest, above, below)]
    found: list[_Ranges] = []
    if above:
        found += [{first: (begin, 1), **ranges} for ranges in _between(rest, above, first.step)]
        begin += 1
    if begin < end:
        found.append({first: (begin, end - begin), **_full(rest)})
    found += [{first: (end, 1), **ranges} for ranges in _between(rest, 0, below)]
    return found


def _box(digits: Sequence[_Digit], ranges: _Ranges, strides: dict[str, int], offset: int) -> Box:
    """Turn ranges per digit into one box, neighbours that continue each other on both sides merged."""
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
