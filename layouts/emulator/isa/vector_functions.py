"""Arithmetic of vector instructions: functions of 32-bit words, lane by lane.

Arguments are arrays of uint32 that broadcast against each other, at least two-dimensional; so are results. Each is
compared with AMD's pseudocode by ``tests/layouts/emulator/test_opcodes.py``. Reciprocal, square root, exponential and
logarithm are numpy's: the hardware's differ in the last place. Denormals are kept.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.emulator.isa.operands import floats, words_of
from preshuffle.layouts.emulator.isa.waves import Words
from preshuffle.layouts.emulator.number_formats import float_to_bf16

Function = Callable[..., Words]
Float32 = NDArray[np.float32]

SHIFT = np.uint32(31)
HALF = np.uint32(0xFFFF)
THREE_BYTES = np.uint32(0xFFFFFF)
LANE = np.arange(64, dtype=np.uint64)
LANES_BELOW = (np.uint64(1) << LANE) - np.uint64(1)
LOW_LANES = (LANES_BELOW & np.uint64(0xFFFFFFFF)).astype(np.uint32)
HIGH_LANES = (LANES_BELOW >> np.uint64(32)).astype(np.uint32)


def _float(function: Callable[..., Float32]) -> Function:
    return lambda *words: words_of(function(*(floats(word) for word in words)))


def _int(words: Words) -> NDArray[np.int32]:
    return words.view(np.int32)


def _fused(first: Float32, second: Float32, third: Float32) -> Float32:
    return (first.astype(np.float64) * second + third).astype(np.float32)


def _signed24(words: Words) -> NDArray[np.int32]:
    return _int(words << np.uint32(8)) >> 8


def _mul_high(first: Words, second: Words) -> Words:
    return (first.astype(np.uint64) * second >> np.uint64(32)).astype(np.uint32)


def _extract(word: Words, offset: Words, width: Words) -> Words:
    value: Words = word >> (offset & SHIFT) & (np.uint32(1) << (width & SHIFT)) - np.uint32(1)
    return value


def _extract_signed(word: Words, offset: Words, width: Words) -> Words:
    bits = width & SHIFT
    value = (_int(word) >> _int(offset & SHIFT)).view(np.uint32) & (np.uint32(1) << bits) - np.uint32(1)
    top = np.where(bits > 0, np.uint32(1) << np.maximum(bits, np.uint32(1)) - np.uint32(1), np.uint32(0))
    return (value ^ top) - top


def _count_bits(words: Words) -> Words:
    return np.bitwise_count(words).astype(np.uint32)


def _permute_bytes(first: Words, second: Words, select: Words) -> Words:
    both = first.astype(np.uint64) << np.uint64(32) | second
    result = np.zeros(np.broadcast_shapes(both.shape, select.shape), np.uint32)
    for byte in range(4):
        choice = (select >> np.uint32(8 * byte) & np.uint32(255)).astype(np.uint64)
        plain = both >> (np.minimum(choice, np.uint64(7)) * np.uint64(8)) & np.uint64(255)
        source = np.minimum(np.maximum(choice, np.uint64(8)) - np.uint64(8), np.uint64(3)) * np.uint64(2) + np.uint64(1)
        sign = (both >> (source * np.uint64(8) + np.uint64(7)) & np.uint64(1)) * np.uint64(255)
        value = np.where(choice < 8, plain, np.where(choice < 12, sign, np.where(choice == 12, 0, 255)))
        result |= value.astype(np.uint32) << np.uint32(8 * byte)
    return result


def _toward_zero_f16(values: Float32) -> NDArray[np.float16]:
    nearest = values.astype(np.float16)
    too_far = np.abs(nearest.astype(np.float64)) > np.abs(values.astype(np.float64))
    return np.where(too_far, np.nextafter(nearest, np.float16(0)), nearest)


def pack_halves(low: NDArray[np.uint16], high: NDArray[np.uint16]) -> Words:
    """Return words with two 16-bit halves."""
    return low.astype(np.uint32) | high.astype(np.uint32) << np.uint32(16)


def _to_unsigned(values: Float32) -> Words:
    whole = np.clip(np.nan_to_num(np.trunc(values.astype(np.float64)), nan=0), 0, 2**32 - 1)
    words: Words = whole.astype(np.uint32)
    return words


def _to_signed(values: Float32) -> Words:
    whole = np.clip(np.nan_to_num(np.trunc(values.astype(np.float64)), nan=0), -(2**31), 2**31 - 1)
    words: Words = whole.astype(np.int32).view(np.uint32)
    return words


def _minimum(first: Float32, second: Float32) -> Float32:
    return np.fmin(first, second)


def _maximum(first: Float32, second: Float32) -> Float32:
    return np.fmax(first, second)


def _median(first: Float32, second: Float32, third: Float32) -> Float32:
    """Middle of three; the smallest number where one of them is NaN."""
    middle = _maximum(_minimum(first, second), _minimum(_maximum(first, second), third))
    smallest = _minimum(_minimum(first, second), third)
    return np.where(np.isnan(first) | np.isnan(second) | np.isnan(third), smallest, middle)


def _halves(function: Callable[[Words, Words], Words]) -> Function:
    """Function of the low halves; the upper half of the result is 0, as on gfx9."""
    return lambda first, second: function(first & HALF, second & HALF) & HALF


def _signed_half(words: Words) -> NDArray[np.int32]:
    return _int(words << np.uint32(16)) >> 16


UNARY: dict[str, Function] = {
    "v_mov_b32": lambda a: a,
    "v_accvgpr_write": lambda a: a,
    "v_accvgpr_read": lambda a: a,
    "v_accvgpr_mov_b32": lambda a: a,
    "v_not_b32": lambda a: ~a,
    "v_rcp_f32": _float(lambda a: np.float32(1) / a),
    "v_rcp_iflag_f32": _float(lambda a: np.float32(1) / a),
    "v_exp_f32": _float(np.exp2),
    "v_log_f32": _float(np.log2),
    "v_sqrt_f32": _float(np.sqrt),
    "v_rndne_f32": _float(np.rint),
    "v_trunc_f32": _float(np.trunc),
    "v_floor_f32": _float(np.floor),
    "v_cvt_f32_u32": lambda a: words_of(a.astype(np.float32)),
    "v_cvt_f32_i32": lambda a: words_of(_int(a).astype(np.float32)),
    "v_cvt_u32_f32": lambda a: _to_unsigned(floats(a)),
    "v_cvt_i32_f32": lambda a: _to_signed(floats(a)),
    "v_cvt_f32_ubyte0": lambda a: words_of((a & np.uint32(255)).astype(np.float32)),
    "v_cvt_f32_ubyte1": lambda a: words_of((a >> np.uint32(8) & np.uint32(255)).astype(np.float32)),
    "v_cvt_f32_ubyte2": lambda a: words_of((a >> np.uint32(16) & np.uint32(255)).astype(np.float32)),
    "v_cvt_f32_ubyte3": lambda a: words_of((a >> np.uint32(24)).astype(np.float32)),
    "v_cvt_f32_f16": lambda a: words_of((a & HALF).astype(np.uint16).view(np.float16).astype(np.float32)),
    "v_cvt_f16_f32": lambda a: floats(a).astype(np.float16).view(np.uint16).astype(np.uint32),
    "v_cvt_off_f32_i4": lambda a: words_of(((_int(a << np.uint32(28)) >> 28) / 16).astype(np.float32)),
}

BINARY: dict[str, Function] = {
    "v_add_f32": _float(np.add),
    "v_sub_f32": _float(np.subtract),
    "v_subrev_f32": _float(lambda a, b: b - a),
    "v_mul_f32": _float(np.multiply),
    "v_min_f32": _float(_minimum),
    "v_max_f32": _float(_maximum),
    "v_ldexp_f32": lambda a, b: words_of(np.ldexp(floats(a), _int(b))),
    "v_add_u32": lambda a, b: a + b,
    "v_add_i32": lambda a, b: a + b,
    "v_sub_u32": lambda a, b: a - b,
    "v_sub_i32": lambda a, b: a - b,
    "v_subrev_u32": lambda a, b: b - a,
    "v_mul_lo_u32": lambda a, b: a * b,
    "v_mul_hi_u32": _mul_high,
    "v_mul_u32_u24": lambda a, b: (a & THREE_BYTES) * (b & THREE_BYTES),
    "v_mul_i32_i24": lambda a, b: (_signed24(a) * _signed24(b)).view(np.uint32),
    "v_min_u32": np.minimum,
    "v_max_u32": np.maximum,
    "v_min_i32": lambda a, b: np.minimum(_int(a), _int(b)).view(np.uint32),
    "v_max_i32": lambda a, b: np.maximum(_int(a), _int(b)).view(np.uint32),
    "v_and_b32": lambda a, b: a & b,
    "v_or_b32": lambda a, b: a | b,
    "v_xor_b32": lambda a, b: a ^ b,
    "v_lshlrev_b32": lambda a, b: b << (a & SHIFT),
    "v_lshrrev_b32": lambda a, b: b >> (a & SHIFT),
    "v_ashrrev_i32": lambda a, b: (_int(b) >> _int(a & SHIFT)).view(np.uint32),
    "v_add_u16": _halves(lambda a, b: a + b),
    "v_sub_u16": _halves(lambda a, b: a - b),
    "v_mul_lo_u16": _halves(lambda a, b: a * b),
    "v_lshlrev_b16": _halves(lambda a, b: b << (a & np.uint32(15))),
    "v_lshrrev_b16": _halves(lambda a, b: b >> (a & np.uint32(15))),
    "v_ashrrev_i16": _halves(lambda a, b: (_signed_half(b) >> _int(a & np.uint32(15))).view(np.uint32)),
    "v_mbcnt_lo_u32_b32": lambda a, b: _count_bits(a & LOW_LANES) + b,
    "v_mbcnt_hi_u32_b32": lambda a, b: _count_bits(a & HIGH_LANES) + b,
    "v_cvt_pkrtz_f16_f32": lambda a, b: pack_halves(
        _toward_zero_f16(floats(a)).view(np.uint16), _toward_zero_f16(floats(b)).view(np.uint16)
    ),
    "v_cvt_pk_bf16_f32": lambda a, b: pack_halves(float_to_bf16(floats(a)), float_to_bf16(floats(b))),
}

TERNARY: dict[str, Function] = {
    "v_fma_f32": _float(_fused),
    "v_min3_f32": _float(lambda a, b, c: _minimum(_minimum(a, b), c)),
    "v_max3_f32": _float(lambda a, b, c: _maximum(_maximum(a, b), c)),
    "v_med3_f32": _float(_median),
    "v_add3_u32": lambda a, b, c: a + b + c,
    "v_xad_u32": lambda a, b, c: (a ^ b) + c,
    "v_lshl_add_u32": lambda a, b, c: (a << (b & SHIFT)) + c,
    "v_add_lshl_u32": lambda a, b, c: a + b << (c & SHIFT),
    "v_lshl_or_b32": lambda a, b, c: a << (b & SHIFT) | c,
    "v_and_or_b32": lambda a, b, c: a & b | c,
    "v_or3_b32": lambda a, b, c: a | b | c,
    "v_mad_u32_u24": lambda a, b, c: (a & THREE_BYTES) * (b & THREE_BYTES) + c,
    "v_bfi_b32": lambda a, b, c: a & b | ~a & c,
    "v_bfe_u32": _extract,
    "v_bfe_i32": _extract_signed,
    "v_perm_b32": _permute_bytes,
}

FLOAT_SOURCES = {
    name
    for name in (*UNARY, *BINARY, *TERNARY)
    if name.endswith("_f32") and not name.startswith(("v_cvt_f32_", "v_ldexp"))
} | {"v_cvt_f16_f32"}
"""Instructions whose sources are float32 and so may be negated or made absolute."""

COMPARISONS: dict[str, Callable[..., NDArray[np.bool_]]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lg": lambda a, b: (a < b) | (a > b),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "o": lambda a, b: (a == a) & (b == b),
    "u": lambda a, b: (a != a) | (b != b),
    "neq": lambda a, b: ~(a == b),
    "nlt": lambda a, b: ~(a < b),
    "nle": lambda a, b: ~(a <= b),
    "ngt": lambda a, b: ~(a > b),
    "nge": lambda a, b: ~(a >= b),
}
COMPARED_TYPES: dict[str, type[np.generic]] = {"u32": np.uint32, "i32": np.int32, "f32": np.float32}
