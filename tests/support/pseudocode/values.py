"""Typed numbers of the pseudocode: bits, signed and unsigned integers, floats."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

SUFFIX = re.compile(r"(u|i|b|f|bf|fp)(\d+)")
FLOAT_TYPES: dict[int, Any] = {16: np.float16, 32: np.float32, 64: np.float64}


@dataclass(frozen=True)
class Number:
    """A number with its type: kind ``u``, ``i``, ``b`` or ``f``, and width in bits."""

    value: int | float
    kind: str = "i"
    width: int = 32


def bits_of(number: Number) -> int:
    """Return the bits of a number."""
    if number.kind == "f":
        with np.errstate(over="ignore"):
            return int.from_bytes(FLOAT_TYPES[number.width](number.value).tobytes(), "little")
    return int(number.value) & (1 << number.width) - 1


def from_bits(bits: int, kind: str, width: int) -> Number:
    """Return the number that bits mean."""
    bits &= (1 << width) - 1
    if kind == "f":
        raw = bits.to_bytes(width // 8, "little")
        return Number(float(np.frombuffer(raw, FLOAT_TYPES[width])[0]), "f", width)
    return Number(bits - (1 << width) if kind == "i" and bits >> width - 1 else bits, kind, width)


def typed(value: int | float, kind: str, width: int) -> Number:
    """Return a value rounded or cut to a type."""
    if kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            return Number(float(FLOAT_TYPES[width](value)), "f", width)
    return from_bits(int(value), kind, width)


def viewed(number: Number, suffix: str) -> Number:
    """Return a number's bits seen as another type, such as ``u32``."""
    match = SUFFIX.fullmatch(suffix)
    assert match is not None, suffix
    kind, width = match[1], int(match[2])
    if kind == "bf":
        return from_bits(bits_of(number), "b", 16)
    if kind == "fp":
        return from_bits(bits_of(number), "b", width)
    if kind == number.kind and width == number.width:
        return number
    if number.kind in "ui" and kind in "ui" and width > number.width:
        return typed(number.value, kind, width)
    return from_bits(bits_of(number), kind, width)


def combined(operator: str, first: Number, second: Number) -> Number:
    """Return the result of an arithmetic or bitwise operator."""
    if "f" in (first.kind, second.kind):
        width = max(number.width for number in (first, second) if number.kind == "f")
        return typed(_float(operator, float(first.value), float(second.value)), "f", width)
    if operator in ("<<", ">>"):
        shifted = int(first.value) << int(second.value) if operator == "<<" else int(first.value) >> int(second.value)
        return typed(shifted, first.kind, first.width)
    wider = first if first.width > second.width or first.kind == "u" else second
    wider = second if second.width > first.width else wider
    return typed(INTEGER[operator](int(first.value), int(second.value)), wider.kind, wider.width)


INTEGER = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
}
COMPARE = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<>": lambda a, b: a < b or a > b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}


def _float(operator: str, first: float, second: float) -> float:
    if operator == "/":
        if second == 0:
            return (
                math.nan
                if first == 0 or math.isnan(first)
                else math.copysign(math.inf, first) * (math.copysign(1.0, second))
            )
        return first / second
    if operator == "**":
        return float(np.float64(first) ** np.float64(second))
    with np.errstate(all="ignore"):
        left, right = np.float64(first), np.float64(second)
        return float({"+": left + right, "-": left - right, "*": left * right}[operator])
