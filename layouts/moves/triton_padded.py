"""Triton kernels that lay bytes out and write pads at once.

As those of ``triton_kernels``, but they run over all of the target: what lies behind the last live row of a half, or
behind the last live byte of K, is not read and gets the fill.
"""

from __future__ import annotations

import triton
import triton.language as tl

from preshuffle.layouts.moves.triton_kernels import _base, _store_words, _tile_of, _transpose_bytes


@triton.jit
def copy_padded(
    source, target,
    size1, size2, size3,
    source0, source1, source2, source3,
    target0, target1, target2, target3,
    row0, row1, row2, row3,
    k0, k1, k2, k3,
    size_a, size_b, source_a, source_b, target_a, target_b, row_a, row_b, k_a, k_b,
    live_rows, live_k, fill,
    A: tl.constexpr, B: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Copy tiles of ``A x B`` units of ``W`` words, pads included.

    As ``copy_units``. Rows and K of the tile's units are compared with the bounds.
    """
    pid, first_a, first_b = _tile_of(tl.program_id(0), size_a, size_b, A, B)
    source += _base(pid, size1, size2, size3, source0, source1, source2, source3) * W
    target += _base(pid, size1, size2, size3, target0, target1, target2, target3) * W
    row = _base(pid, size1, size2, size3, row0, row1, row2, row3).to(tl.int32)
    k = _base(pid, size1, size2, size3, k0, k1, k2, k3).to(tl.int32)
    across = tl.arange(0, B * W)
    word = across % W
    b = first_b + across // W
    a = first_a + tl.arange(0, A)
    mask = (a < size_a)[:, None] & (b < size_b)[None, :]
    live = row + (a * row_a)[:, None] + (b * row_b)[None, :] < live_rows
    live = live & (k + (a * k_a)[:, None] + (b * k_b)[None, :] < live_k) & mask
    read = (a * (source_a * W))[:, None] + (b * (source_b * W) + word)[None, :]
    tile = tl.load(source + read, mask=live, other=fill)
    tl.debug_barrier()
    tl.store(target + (a * (target_a * W))[:, None] + (b * (target_b * W) + word)[None, :], tile, mask=mask)


@triton.jit
def _padded_word(place, row, k, mask, live_rows, live_k, fill, HALVES: tl.constexpr):
    """Load words of four bytes, or their two halves; dead ones are the fill."""
    live = mask & (row < live_rows)
    if HALVES:
        low = tl.load(place, mask=live & (k < live_k), other=fill).to(tl.int32) & 0xFFFF
        word = low | (tl.load(place + 1, mask=live & (k + 2 < live_k), other=fill).to(tl.int32) << 16)
    else:
        word = tl.load(place, mask=live & (k < live_k), other=fill)
    return word


@triton.jit
def transpose_padded(
    source, target,
    size1, size2, size3,
    source0, source1, source2, source3,
    target0, target1, target2, target3,
    row0, row1, row2, row3,
    k0, k1, k2, k3,
    size_a, size_b, source_a, source_b, target_a, target_b, row_a, row_b, k_a, k_b,
    source_bit0, source_bit1, row_bit0, row_bit1, k_bit0, k_bit1, target_bit0, target_bit1,
    live_rows, live_k, fill,
    A: tl.constexpr, B: tl.constexpr, DENSE_TARGET: tl.constexpr, HALVES: tl.constexpr,
):  # fmt: skip
    """Transpose bytes in groups of four words, pads included.

    As ``transpose_words``; the four bytes of a source word are neighbours along K, and K counts in bytes.
    """
    pid, first_a, first_b = _tile_of(tl.program_id(0), size_a, size_b, A, B)
    source += _base(pid, size1, size2, size3, source0, source1, source2, source3)
    target += _base(pid, size1, size2, size3, target0, target1, target2, target3)
    row = _base(pid, size1, size2, size3, row0, row1, row2, row3).to(tl.int32)
    k = _base(pid, size1, size2, size3, k0, k1, k2, k3).to(tl.int32)

    a = first_a + tl.arange(0, A)
    b = first_b + tl.arange(0, B)
    mask = (b < size_b)[:, None] & (a < size_a)[None, :]
    place = source + (b * source_b)[:, None] + (a * source_a)[None, :]
    row += (b * row_b)[:, None] + (a * row_a)[None, :]
    k += (b * k_b)[:, None] + (a * k_a)[None, :]
    both_row, both_k = row + row_bit0 + row_bit1, k + k_bit0 + k_bit1
    x0 = _padded_word(place, row, k, mask, live_rows, live_k, fill, HALVES)
    x1 = _padded_word(place + source_bit0, row + row_bit0, k + k_bit0, mask, live_rows, live_k, fill, HALVES)
    x2 = _padded_word(place + source_bit1, row + row_bit1, k + k_bit1, mask, live_rows, live_k, fill, HALVES)
    x3 = _padded_word(place + source_bit0 + source_bit1, both_row, both_k, mask, live_rows, live_k, fill, HALVES)
    tl.debug_barrier()

    turned = _transpose_bytes(x0, x1, x2, x3, A, B)
    _store_words(
        target, turned, a, first_b, size_a, size_b, target_a, target_b, target_bit0, target_bit1, B, DENSE_TARGET
    )
