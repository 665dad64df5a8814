"""Triton kernels that move units of bytes.

They compile for both ROCm and CUDA.

Neighbouring threads write neighbouring units; what they read are whole sectors of a few rows. Outer axes come as
runtime numbers, so that a kernel is compiled once for a kind of layout and not once for a shape. Each program reads all
that it needs before it writes, so that a band which a program has to itself is permuted in place.
"""

from __future__ import annotations

import triton
import triton.language as tl

_CHUNK = tl.constexpr(8192)
"""Words that are copied at once."""


@triton.jit
def _base(pid, size1, size2, size3, stride0, stride1, stride2, stride3):
    """Return the 64-bit offset of a program.

    Of up to four outer axes the last is the fastest.
    """
    pid = pid.to(tl.int64)
    offset = (pid % size3) * stride3
    pid = pid // size3
    offset += (pid % size2) * stride2
    pid = pid // size2
    offset += (pid % size1) * stride1
    return offset + (pid // size1) * stride0


@triton.jit
def _tile_of(pid, size_a, size_b, A: tl.constexpr, B: tl.constexpr):
    """Return a program's number among the outer axes, and where its tile begins on axes a and b."""
    tiles_a = tl.cdiv(size_a, A)
    tiles_b = tl.cdiv(size_b, B)
    first_b = (pid % tiles_b) * B
    pid = pid // tiles_b
    first_a = (pid % tiles_a) * A
    return pid // tiles_a, first_a, first_b


@triton.jit
def copy_units(
    source, target,
    size1, size2, size3,
    source0, source1, source2, source3,
    target0, target1, target2, target3,
    size_a, size_b, source_a, source_b, target_a, target_b,
    A: tl.constexpr, B: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Copy tiles of ``A x B`` units of ``W`` words.

    Axis b is the target's fastest, axis a the source's.

    Sizes and strides are in units.
    """
    pid, first_a, first_b = _tile_of(tl.program_id(0), size_a, size_b, A, B)
    source += _base(pid, size1, size2, size3, source0, source1, source2, source3) * W
    target += _base(pid, size1, size2, size3, target0, target1, target2, target3) * W
    across = tl.arange(0, B * W)
    word = across % W
    b = first_b + across // W
    a = first_a + tl.arange(0, A)
    mask = (a < size_a)[:, None] & (b < size_b)[None, :]
    tile = tl.load(source + (a * (source_a * W))[:, None] + (b * (source_b * W) + word)[None, :], mask=mask)
    tl.debug_barrier()
    tl.store(target + (a * (target_a * W))[:, None] + (b * (target_b * W) + word)[None, :], tile, mask=mask)


@triton.jit
def permute_bands(
    source, target,
    size1, size2, size3, stride0, stride1, stride2, stride3,
    size_a, size_b, source_a, source_b, target_a, target_b,
    A: tl.constexpr, B: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Permute each program's band in place.

    A program reads its band in lines, transposes it in registers, and writes it in lines.

    Sizes and strides are in units of ``W`` words; axis a is the source's fastest, axis b the target's.
    """
    base = _base(tl.program_id(0), size1, size2, size3, stride0, stride1, stride2, stride3) * W
    source += base
    target += base
    across = tl.arange(0, A * W)
    b = tl.arange(0, B)
    mask = (b < size_b)[:, None] & (across // W < size_a)[None, :]
    along = across // W * (source_a * W) + across % W
    band = tl.load(source + (b * (source_b * W))[:, None] + along[None, :], mask=mask)
    tl.debug_barrier()
    turned = band.reshape(B, A, W).permute(1, 0, 2).reshape(A, B * W)
    across = tl.arange(0, B * W)
    a = tl.arange(0, A)
    mask = (a < size_a)[:, None] & (across // W < size_b)[None, :]
    along = across // W * (target_b * W) + across % W
    tl.store(target + (a * (target_a * W))[:, None] + along[None, :], turned, mask=mask)


@triton.jit
def permute_cycles(
    source, target,
    order, cycles, count, block, band,
    size_a, size_b, source_a, source_b, target_a, target_b,
    A: tl.constexpr, B: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Permute bands in place along cycles.

    A program follows one cycle of bands, one band in its registers.

    Block ``i`` (an expert, say) begins at ``i * block`` units, its band ``p`` at ``p * band``. What belongs into band p
    lies in band ``order[p]``; ``cycles`` holds a first band and a length for each of ``count`` cycles.
    """
    number = tl.program_id(0)
    start = (number // count).to(tl.int64) * block * W
    source += start
    target += start
    place = tl.load(cycles + 2 * (number % count))
    length = tl.load(cycles + 2 * (number % count) + 1)

    across = tl.arange(0, A * W)
    b = tl.arange(0, B)
    inside = (b < size_b)[:, None] & (across // W < size_a)[None, :]
    read = (b * (source_b * W))[:, None] + (across // W * (source_a * W) + across % W)[None, :]
    across = tl.arange(0, B * W)
    a = tl.arange(0, A)
    within = (a < size_a)[:, None] & (across // W < size_b)[None, :]
    write = (a * (target_a * W))[:, None] + (across // W * (target_b * W) + across % W)[None, :]

    first = tl.load(source + place * (band * W) + read, mask=inside)
    for step in range(length):
        origin = tl.load(order + place)
        tile = tl.load(source + origin * (band * W) + read, mask=inside)
        tile = tl.where(step == length - 1, first, tile)
        tl.debug_barrier()
        turned = tile.reshape(B, A, W).permute(1, 0, 2).reshape(A, B * W)
        tl.store(target + place * (band * W) + write, turned, mask=within)
        place = origin


@triton.jit
def _transpose_bytes(x0, x1, x2, x3, A: tl.constexpr, B: tl.constexpr):
    """Transpose words ``x [B, A]`` into ``[A, 4 * B]``.

    Byte j of the four words becomes word j; the four words follow each other.
    """
    # two rounds of swapping: bytes between neighbours, then halves between pairs
    low: tl.constexpr = 0x00FF00FF
    even01 = (x0 & low) | ((x1 & low) << 8)
    odd01 = ((x0 >> 8) & low) | (((x1 >> 8) & low) << 8)
    even23 = (x2 & low) | ((x3 & low) << 8)
    odd23 = ((x2 >> 8) & low) | (((x3 >> 8) & low) << 8)
    y0 = (even01 & 0xFFFF) | (even23 << 16)
    y1 = (odd01 & 0xFFFF) | (odd23 << 16)
    y2 = ((even01 >> 16) & 0xFFFF) | ((even23 >> 16) << 16)
    y3 = ((odd01 >> 16) & 0xFFFF) | ((odd23 >> 16) << 16)
    words = tl.join(tl.join(y0, y2), tl.join(y1, y3))  # [B, A, (0 | 2), (even | odd)]
    return words.permute(1, 2, 3, 0).reshape(A, 4 * B)


@triton.jit
def _word(place, mask, HALVES: tl.constexpr):
    """Load words of four bytes, or their two halves."""
    if HALVES:
        low = tl.load(place, mask=mask, other=0).to(tl.int32) & 0xFFFF
        word = low | (tl.load(place + 1, mask=mask, other=0).to(tl.int32) << 16)
    else:
        word = tl.load(place, mask=mask, other=0)
    return word


@triton.jit
def _store_words(
    target, words, a, first_b, size_a, size_b, target_a, target_b, target_bit0, target_bit1,
    B: tl.constexpr, DENSE_TARGET: tl.constexpr,
):  # fmt: skip
    """Store what ``_transpose_bytes`` gives of a tile."""
    across = tl.arange(0, 4 * B)
    b = first_b + across % B
    if DENSE_TARGET:  # the four words of b = 0..B-1 follow each other
        along = across
    else:
        along = (across // B % 2) * target_bit0 + (across // (2 * B)) * target_bit1 + b * target_b
    mask = (a < size_a)[:, None] & (b < size_b)[None, :]
    tl.store(target + (a * target_a)[:, None] + along[None, :], words, mask=mask)


@triton.jit
def transpose_words(
    source, target,
    size1, size2, size3,
    source0, source1, source2, source3,
    target0, target1, target2, target3,
    size_a, size_b, source_a, source_b, target_a, target_b,
    source_bit0, source_bit1, target_bit0, target_bit1,
    A: tl.constexpr, B: tl.constexpr, DENSE_TARGET: tl.constexpr, HALVES: tl.constexpr,
):  # fmt: skip
    """Transpose bytes in groups of four words.

    Byte j of the source words 0..3 becomes target word j.

    This is the inside of a scale tile. Everything counts in words of four bytes; the number of a word has two bits, and
    each bit has a stride of its own on either side. With ``HALVES`` the source counts in halves of words, and a word is
    read in two (rows of 90 scales begin at multiples of two bytes).
    """
    pid, first_a, first_b = _tile_of(tl.program_id(0), size_a, size_b, A, B)
    source += _base(pid, size1, size2, size3, source0, source1, source2, source3)
    target += _base(pid, size1, size2, size3, target0, target1, target2, target3)

    a = first_a + tl.arange(0, A)
    b = first_b + tl.arange(0, B)
    mask = (b < size_b)[:, None] & (a < size_a)[None, :]
    place = source + (b * source_b)[:, None] + (a * source_a)[None, :]
    x0 = _word(place, mask, HALVES)
    x1 = _word(place + source_bit0, mask, HALVES)
    x2 = _word(place + source_bit1, mask, HALVES)
    x3 = _word(place + source_bit0 + source_bit1, mask, HALVES)
    tl.debug_barrier()

    turned = _transpose_bytes(x0, x1, x2, x3, A, B)
    _store_words(
        target, turned, a, first_b, size_a, size_b, target_a, target_b, target_bit0, target_bit1, B, DENSE_TARGET
    )


@triton.jit
def join_halves(
    data, scratch, blocks, half, bands, tiles, source_tile, source_row, beside, step,
    A: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Interleave the two halves of blocks byte by byte, in place.

    A program takes one block after the other.

    ``scratch`` holds half a block for each program. Bands are read one step ahead of what is written; everything counts
    in words, ``A`` is at least the tiles of one step, ``B`` the rows of a tile. A hint keeps the scratch in the cache.
    """
    pid = tl.program_id(0).to(tl.int64)
    first = data + pid * (2 * half)
    kept = scratch + pid * half
    a = tl.arange(0, A)
    row = (tl.arange(0, B) * source_row)[:, None]
    across = tl.arange(0, 4 * B)[None, :]
    band = half // bands
    count = bands * tiles
    inside = a < step * tiles
    chunk = tl.arange(0, _CHUNK)
    for _ in range(tl.program_id(0), blocks, tl.num_programs(0)):
        second = first + half
        for start in range(0, half, _CHUNK):
            some = start + chunk < half
            words = tl.load(first + start + chunk, mask=some, eviction_policy="evict_first")
            tl.store(kept + start + chunk, words, mask=some, eviction_policy="evict_last")
        tl.debug_barrier()

        mask = (inside & (a < count))[None, :]
        place = (a // tiles * band + a % tiles * source_tile)[None, :] + row
        x0 = tl.load(kept + place, mask=mask, other=0)
        x1 = tl.load(second + place, mask=mask, other=0)
        x2 = tl.load(kept + beside + place, mask=mask, other=0)
        x3 = tl.load(second + beside + place, mask=mask, other=0, eviction_policy="evict_first")
        for start in range(0, bands, step):
            tile = (start + step) * tiles + a
            mask = (inside & (tile < count))[None, :]
            place = (tile // tiles * band + tile % tiles * source_tile)[None, :] + row
            next0 = tl.load(kept + place, mask=mask, other=0)
            next1 = tl.load(second + place, mask=mask, other=0)
            next2 = tl.load(kept + beside + place, mask=mask, other=0)
            next3 = tl.load(second + beside + place, mask=mask, other=0, eviction_policy="evict_first")
            tl.debug_barrier()
            tile = start * tiles + a
            within = (inside & (tile < count))[:, None]
            tl.store(first + (tile * (4 * B))[:, None] + across, _transpose_bytes(x0, x1, x2, x3, A, B), mask=within)
            x0 = next0
            x1 = next1
            x2 = next2
            x3 = next3
        tl.debug_barrier()
        first += tl.num_programs(0).to(tl.int64) * (2 * half)


@triton.jit
def gather_units(
    source, target,
    size1, size2, size3,
    source0, source1, source2, source3,
    target0, target1, target2, target3,
    size_a, source_a, target_a,
    s0, s1, s2, s3, t0, t1, t2, t3,
    A: tl.constexpr, I0: tl.constexpr, I1: tl.constexpr, I2: tl.constexpr, I3: tl.constexpr, ROOM: tl.constexpr,
):  # fmt: skip
    """Copy any layout one unit at a time, in target order.

    Up to four small inner axes have a fixed size.
    """
    pid = tl.program_id(0)
    tiles_a = tl.cdiv(size_a, A)
    a = (pid % tiles_a) * A + tl.arange(0, A)
    pid = pid // tiles_a
    source += _base(pid, size1, size2, size3, source0, source1, source2, source3)
    target += _base(pid, size1, size2, size3, target0, target1, target2, target3)
    inner = tl.arange(0, ROOM)
    i3 = inner % I3
    i2 = inner // I3 % I2
    i1 = inner // (I3 * I2) % I1
    i0 = inner // (I3 * I2 * I1)
    mask = (a < size_a)[:, None] & (i0 < I0)[None, :]
    read = (a * source_a)[:, None] + (i0 * s0 + i1 * s1 + i2 * s2 + i3 * s3)[None, :]
    write = (a * target_a)[:, None] + (i0 * t0 + i1 * t1 + i2 * t2 + i3 * t3)[None, :]
    tl.store(target + write, tl.load(source + read, mask=mask), mask=mask)
