"""Conversions of gfx942 and gfx950 between narrow floats and others.

Rounding to fp4 and fp8 is to nearest even, and saturates.
"""

import numpy as np

from preshuffle.layouts.emulator.mlir.operations import Operation, Run, compiles
from preshuffle.layouts.emulator.mlir.threads import Threads
from preshuffle.layouts.emulator.mlir.types import Array, floats, of_bytes, of_floats, to_bytes
from preshuffle.layouts.emulator.number_formats import E2M1, FP8_OF_ARCH, float_to_bf16, float_to_code

FROM_FP4 = tuple(f"rocdl.cvt.scalef32.pk.{wide}.fp4" for wide in ("bf16", "f16", "f32"))
INT4_TEXT = "asm v_cvt_off_f32_i4_sdwa $0, $1 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:BYTE_"
INT4_TO_FLOAT = {f"{INT4_TEXT}{byte}": byte for byte in range(4)}


@compiles(*FROM_FP4)
def _from_fp4(operation: Operation) -> Run:
    source_type, scale_type, result = operation.operands[0], operation.operands[1], operation.result
    chosen = operation.parsed.number("srcSelIndex")

    def convert(threads: Threads, source: Array, scale: Array) -> Array:
        byte = to_bytes(source, source_type)[:, chosen]
        values = E2M1[np.stack([byte & 15, byte >> 4], 1)] * floats(scale, scale_type)[:, None]
        return of_floats(values.astype(np.float32), result)

    return convert


@compiles("rocdl.cvt.scalef32.pk.fp4.f32")
def _to_fp4(operation: Operation) -> Run:
    type, result = operation.operands[0], operation.result
    chosen = operation.parsed.number("dstSelIndex")

    def convert(threads: Threads, old: Array, low: Array, high: Array, scale: Array) -> Array:
        divisor = threads.everyone(scale).astype(np.float64)
        codes = [float_to_code(np.nan_to_num(threads.everyone(part) / divisor), E2M1) for part in (low, high)]
        raw = to_bytes(threads.everyone(old), type).copy()
        raw[:, chosen] = codes[0] | codes[1] << 4
        return of_bytes(raw, result)

    return convert


@compiles("rocdl.cvt.scalef32.pk.fp4.bf16", "rocdl.cvt.scalef32.pk.fp4.f16")
def _pair_to_fp4(operation: Operation) -> Run:
    type, pair, result = operation.operands[0], operation.operands[1], operation.result
    byte = operation.parsed.number("dstSelIndex")

    def convert(threads: Threads, old: Array, source: Array, scale: Array) -> Array:
        divided = floats(threads.everyone(source), pair).astype(np.float64) / threads.everyone(scale)[:, None]
        codes = float_to_code(np.nan_to_num(divided), E2M1)
        raw = to_bytes(threads.everyone(old), type).copy()
        raw[:, byte] = codes[:, 0] | codes[:, 1] << 4
        return of_bytes(raw, result)

    return convert


@compiles("rocdl.cvt.pk.fp8.f32")
def _to_fp8(operation: Operation) -> Run:
    type, result = operation.operands[2], operation.result
    first = 2 * operation.parsed.number("wordSel")

    def convert(threads: Threads, low: Array, high: Array, old: Array) -> Array:
        raw = to_bytes(threads.everyone(old), type).copy()
        for index, part in enumerate((low, high)):
            raw[:, first + index] = float_to_code(np.nan_to_num(threads.everyone(part)), FP8_OF_ARCH[threads.arch])
        return of_bytes(raw, result)

    return convert


@compiles(*INT4_TO_FLOAT)
def _from_int4(operation: Operation) -> Run:
    byte, type = INT4_TO_FLOAT[operation.label], operation.operands[0]

    def convert(threads: Threads, source: Array) -> Array:
        nibble = (to_bytes(source, type)[:, byte] & 15).astype(np.int8)
        return (((nibble ^ 8) - 8) / 16).astype(np.float32)

    return convert


@compiles("asm v_cvt_pk_bf16_f32 $0, $1, $2")
def _pack_bf16(operation: Operation) -> Run:
    result = operation.result

    def pack(threads: Threads, low: Array, high: Array) -> Array:
        rows = max(len(low), len(high))
        pairs = np.stack([float_to_bf16(np.broadcast_to(part, (rows,))) for part in (low, high)], 1)
        return of_bytes(np.ascontiguousarray(pairs).view(np.uint8), result)

    return pack
