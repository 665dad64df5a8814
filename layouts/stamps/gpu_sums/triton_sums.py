"""Triton kernel that sums sampled words of several spans of memory.

It computes what ``digests.fingerprint`` does with torch's operations, bit for bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

_ALL = tl.constexpr(1 << 20)
_SAMPLES = tl.constexpr(64)
_PARTS = tl.constexpr(512)


@triton.jit
def _mixed(number):
    """Return irregular int64 numbers (the end of splitmix64)."""
    mixed = (number ^ ((number >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    mixed = (mixed ^ ((mixed >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return mixed ^ ((mixed >> 31) & 0x1FFFFFFFF)


@triton.jit
def _selected(slot, x0, x1, x2, x3, x4, x5, x6, x7):
    """Return the argument of a slot as int64."""
    low = tl.where(slot < 2, tl.where(slot == 0, x0, x1), tl.where(slot == 2, x2, x3))
    high = tl.where(slot < 6, tl.where(slot == 4, x4, x5), tl.where(slot == 6, x6, x7))
    return tl.where(slot < 4, low, high).to(tl.int64)


@triton.jit(do_not_specialize=[f"{name}{slot}" for name in ("address", "nbytes") for slot in range(8)])
def sum_parts(
    sums, most_parts,
    address0, address1, address2, address3, address4, address5, address6, address7,
    nbytes0, nbytes1, nbytes2, nbytes3, nbytes4, nbytes5, nbytes6, nbytes7,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Write weighted sums of each part of up to eight spans.

    ``sums`` is ``int64 [spans, most_parts]``.

    A program takes ``ROWS`` parts of the span that its second number names. Addresses are multiples of eight bytes.
    """
    slot = tl.program_id(1)
    address = _selected(slot, address0, address1, address2, address3, address4, address5, address6, address7)
    nbytes = _selected(slot, nbytes0, nbytes1, nbytes2, nbytes3, nbytes4, nbytes5, nbytes6, nbytes7)
    words = nbytes // 8
    part = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, _SAMPLES).to(tl.int64)
    number = part.to(tl.int64)[:, None] * _SAMPLES + lane[None, :]
    begin = number * words // (_PARTS * _SAMPLES)
    room = (number + 1) * words // (_PARTS * _SAMPLES) - begin
    seen_all = nbytes <= _ALL
    inside = (_mixed((number + 1) * -7046029254386353131 + nbytes) & 0x7FFFFFFF) % tl.where(seen_all, 1, room)
    place = tl.where(seen_all, number, begin + inside)
    parts = tl.where(seen_all, (words + _SAMPLES - 1) // _SAMPLES, _PARTS)
    mask = (part < parts)[:, None] & (place < words)
    data = tl.load(address.to(tl.pointer_type(tl.int64)) + place, mask=mask, other=0)
    weight = _mixed((lane + 1) * -7046029254386353131) | 1
    tl.store(sums + slot * most_parts + part, tl.sum(data * weight[None, :], axis=1), mask=part < most_parts)
