"""The GPU kernels that move units: Triton, compiled alike for ROCm and CUDA.

No kernel changes the layout of its registers: a thread writes what it has read. Neighbouring threads write neighbouring
units; what they read are whole 32-byte sectors of a few rows. Outer axes come as runtime numbers, so that a kernel is
compiled once for a kind of layout and not once for a shape. Each program reads all that it needs before it writes, so
that a band which a program has to itself is permuted in place.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _base(pid, size1, size2, size3, stride0, stride1, stride2, stride3):
    """Return the offset (64 bits) of a program in up to four outer axes, the last the fastest."""
    pid = pid.to(tl.int64)
    offset = (pid % size3) * stride3
    pid = pid // size3
    offset += (pid % size2) * stride2
    pid = pid // size2
    offset += (pid % size1) * stride1
    return offset + (pid // size1) * stride0


@triton.jit
def copy_units(
    source, target,
    size1, size2, size3,
    source0, source1, source2, source3,
    target0, target1, target2, target3,
    size_a, size_b, source_a, source_b, target_a, target_b,
    A: tl.constexpr, B: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Copy ``A x B`` units of ``W`` words; axis b is the target's fastest, axis a the source's.

    Sizes and strides are in units.
    """
    pid = tl.program_id(0)
    tiles_a = tl.cdiv(size_a, A)
    tiles_b = tl.cdiv(size_b, B)
    first_b = (pid % tiles_b) * B
    pid = pid // tiles_b
    first_a = (pid % tiles_a) * A
    pid = pid // tiles_a
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


@triton.jit(do_not_specialize=["target_b"])
def transpose_words(
    source, target,
    size1, size2, size3,
    source0, source1, source2, source3,
    target0, target1, target2, target3,
    size_n, size_a, source_n, source_a, source_b, target_n, target_a, target_b,
    source_bit0, target_bit0, target_bit1,
    N: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Copy single bytes four by four: byte j of the source words 0..3 becomes target word j.

    This is the inside of a scale tile; everything counts in words of four bytes. Words 0 and 2 (and 1 and 3) of the
    source are neighbours, and so are theirs of the next a: a thread reads 16 bytes at once, of two a. The stride of b
    is kept from the compiler, which would otherwise turn the registers round to write 16 bytes at once, too.
    """
    pid = tl.program_id(0)
    tiles_n = tl.cdiv(size_n, N)
    first_n = (pid % tiles_n) * N
    pid = pid // tiles_n
    source += _base(pid, size1, size2, size3, source0, source1, source2, source3)
    target += _base(pid, size1, size2, size3, target0, target1, target2, target3)
    pair = tl.arange(0, N * A)
    n = first_n + pair // A
    a = (pair % A) * 2
    b = tl.arange(0, B)
    live = (n < size_n) & (a < size_a)
    place = (
        (n * source_n + a * source_a)[:, None, None] + (b * source_b)[None, :, None] + tl.arange(0, 4)[None, None, :]
    )
    mask = live[:, None, None] & (b < B)[None, :, None] & (tl.arange(0, 4) < 4)[None, None, :]
    even = tl.load(source + place, mask=mask, other=0).reshape(N * A, B, 2, 2)
    odd = tl.load(source + source_bit0 + place, mask=mask, other=0).reshape(N * A, B, 2, 2)
    tl.debug_barrier()
    even0, even1 = tl.split(even)
    odd0, odd1 = tl.split(odd)
    x0, z0 = tl.split(even0)
    x2, z2 = tl.split(even1)
    x1, z1 = tl.split(odd0)
    x3, z3 = tl.split(odd1)
    place = (n * target_n + a * target_a)[:, None] + (b * target_b)[None, :]
    mask = live[:, None] & (b < B)[None, :]
    _store_turned(target + place, x0, x1, x2, x3, target_bit0, target_bit1, mask)
    mask = mask & (a + 1 < size_a)[:, None]
    _store_turned(target + target_a + place, z0, z1, z2, z3, target_bit0, target_bit1, mask)


@triton.jit
def _store_turned(place, x0, x1, x2, x3, bit0, bit1, mask):
    """Turn four words of four bytes round, in two rounds of swapping, and store them."""
    low: tl.constexpr = 0x00FF00FF
    even01 = (x0 & low) | ((x1 & low) << 8)
    odd01 = ((x0 >> 8) & low) | (((x1 >> 8) & low) << 8)
    even23 = (x2 & low) | ((x3 & low) << 8)
    odd23 = ((x2 >> 8) & low) | (((x3 >> 8) & low) << 8)
    tl.store(place, (even01 & 0xFFFF) | (even23 << 16), mask=mask)
    tl.store(place + bit0, (odd01 & 0xFFFF) | (odd23 << 16), mask=mask)
    tl.store(place + bit1, ((even01 >> 16) & 0xFFFF) | ((even23 >> 16) << 16), mask=mask)
    tl.store(place + bit0 + bit1, ((odd01 >> 16) & 0xFFFF) | ((odd23 >> 16) << 16), mask=mask)


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
    """Copy anything: up to four small inner axes of fixed size, one unit at a time, in the target's order."""
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
