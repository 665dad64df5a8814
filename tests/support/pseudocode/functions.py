"""Functions that the pseudocode calls and does not define."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from support.pseudocode.values import Number, typed

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def _f32(value: float) -> Number:
    return typed(value, "f", 32)


def _fma(first: Number, second: Number, third: Number) -> Number:
    values = [float(number.value) for number in (first, second, third)]
    if all(map(math.isfinite, values)):
        exact = Fraction(values[0]) * Fraction(values[1]) + Fraction(values[2])
        try:
            return _f32(float(exact))
        except OverflowError:
            return _f32(math.copysign(math.inf, exact))
    with np.errstate(all="ignore"):
        return _f32(float(np.float64(values[0]) * values[1] + values[2]))


def _to_int(number: Number, kind: str) -> Number:
    value = float(number.value)
    low, high = (-(2**31), 2**31 - 1) if kind == "i" else (0, 2**32 - 1)
    if math.isnan(value):
        return Number(0, kind, 32)
    return Number(int(max(low, min(high, value if math.isinf(value) else math.trunc(value)))), kind, 32)


def _sign_extended(number: Number, bit: Number) -> Number:
    width = int(bit.value)
    value = int(number.value) & (1 << width) - 1
    return Number(value - (1 << width) if width and value >> width - 1 else value, "i", 32)


def _to_bf16(number: Number) -> Number:
    value = float(number.value)
    if math.isnan(value):
        return Number(0x7FC0, "b", 16)
    below = int.from_bytes(np.float32(value).tobytes(), "little") >> 16
    choices = [below, below + 1]
    distance = [abs(_bf16(code) - value) if math.isfinite(value) else abs(code - below) for code in choices]
    if distance[0] == distance[1]:
        return Number(next(code for code in choices if code % 2 == 0), "b", 16)
    return Number(choices[distance.index(min(distance))], "b", 16)


def _bf16(code: int) -> float:
    exponent, fraction = code >> 7 & 255, code & 127
    magnitude = fraction / 128 * 2.0**-126 if exponent == 0 else (1 + fraction / 128) * 2.0 ** (exponent - 127)
    return -magnitude if code >> 15 else magnitude


def _to_fp4(number: Number, scale: Number) -> Number:
    value = float(number.value) / 2.0 ** (int(scale.value) - 127)
    best = min(range(8), key=lambda code: (abs(E2M1[code] - min(abs(value), 6.0)), code % 2))
    return Number(best | (8 if math.copysign(1, value) < 0 else 0), "b", 4)


def _from_fp4(number: Number, scale: Number) -> Number:
    code = int(number.value)
    return _f32((-1.0 if code >> 3 else 1.0) * E2M1[code & 7] * 2.0 ** (int(scale.value) - 127))


def _to_f16(number: Number, toward_zero: bool = False) -> Number:
    nearest = typed(float(number.value), "f", 16)
    if toward_zero and abs(float(nearest.value)) > abs(float(number.value)):
        return Number(float(np.nextafter(np.float16(nearest.value), np.float16(0))), "f", 16)
    return nearest


def _exponent(number: Number) -> Number:
    return Number(int.from_bytes(np.float32(number.value).tobytes(), "little") >> 23 & 255, "u", 32)


def _quiet(value: Callable[[float], float]) -> Callable[[Number], Number]:
    def run(number: Number) -> Number:
        with np.errstate(all="ignore"):
            return typed(float(value(float(number.value))), "f", number.width)

    return run


FUNCTIONS: dict[str, Callable[..., Number]] = {
    "isNAN": lambda a: Number(int(math.isnan(a.value)), "u", 1),
    "isSignalNAN": lambda a: Number(0, "u", 1),
    "cvtToQuietNAN": lambda a: a,
    "signext": lambda a: typed(a.value, "i", 64),
    "signext_from_bit": _sign_extended,
    "fma": _fma,
    "exponent": _exponent,
    "pow": lambda a, b: _f32(float(np.float64(a.value) ** np.float64(b.value))),
    "log2": _quiet(np.log2),
    "sqrt": _quiet(np.sqrt),
    "trunc": _quiet(np.trunc),
    "floor": _quiet(np.floor),
    "fract": lambda a: _f32(float(a.value) - math.floor(a.value)),
    "isEven": lambda a: Number(int(float(a.value) % 2 == 0), "u", 1),
    "i32_to_f32": lambda a: _f32(float(int(a.value))),
    "u32_to_f32": lambda a: _f32(float(int(a.value))),
    "f32_to_i32": lambda a: _to_int(a, "i"),
    "f32_to_u32": lambda a: _to_int(a, "u"),
    "f16_to_f32": lambda a: _f32(float(a.value)),
    "f32_to_f16": _to_f16,
    "f32_to_bf16": _to_bf16,
    "f32_to_fp4_scale": _to_fp4,
    "fp4_to_f32_scale": _from_fp4,
    "fp4_to_bf16_scale": lambda a, b: _to_bf16(_from_fp4(a, b)),
    "s_ff1_i32_b64": lambda a: Number((int(a.value) & -int(a.value)).bit_length() - 1, "i", 32),
}
