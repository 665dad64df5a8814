"""Number formats of the matrix cores: code tables and rounding.

All tables are float64. ``fnuz`` formats are those of gfx942 (bias 8, no negative zero), the others OCP's of gfx950.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint32]
Floats = NDArray[np.float64]

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
"""Value of each 4-bit code."""


def _table(exponent_bits: int, bias: int, not_numbers: tuple[int, ...], infinities: tuple[int, ...]) -> Floats:
    mantissa_bits = 7 - exponent_bits
    codes = np.arange(256)
    exponent = codes >> mantissa_bits & (1 << exponent_bits) - 1
    fraction = (codes & (1 << mantissa_bits) - 1) / (1 << mantissa_bits)
    magnitude = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - bias))
    magnitude[list(infinities)] = np.inf
    values = np.where(codes >> 7, -magnitude, magnitude)
    values[list(not_numbers)] = np.nan
    return values


E4M3FN = _table(4, 7, (0x7F, 0xFF), ())
E4M3FNUZ = _table(4, 8, (0x80,), ())
E5M2 = _table(5, 15, (0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF), (0x7C, 0xFC))
E5M2FNUZ = _table(5, 16, (0x80,), ())

FP8_OF_ARCH = {"gfx942": E4M3FNUZ, "gfx950": E4M3FN}
BF8_OF_ARCH = {"gfx942": E5M2FNUZ, "gfx950": E5M2}


def bf16_to_float(codes: ArrayLike) -> NDArray[np.float32]:
    """Return the float32 of bf16 codes."""
    return (np.asarray(codes).astype(np.uint32) << np.uint32(16)).view(np.float32)


def float_to_bf16(values: ArrayLike) -> NDArray[np.uint16]:
    """Round float32 to bf16 codes, half to even; NaN becomes 0x7FC0."""
    numbers = np.ascontiguousarray(values, np.float32)
    bits = numbers.view(np.uint32)
    half = np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    with np.errstate(over="ignore"):
        rounded = (bits + half >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(numbers), np.uint16(0x7FC0), rounded)


def float_to_code(values: ArrayLike, table: Floats) -> NDArray[np.uint8]:
    """Round numbers to codes of a symmetric format, half to even, saturating.

    Args:
        values: numbers; NaN is not allowed.
        table: value of each code; the upper half of the codes is negative.
    """
    numbers = np.asarray(values, np.float64)
    positive = table[: len(table) // 2]
    grid = positive[np.isfinite(positive)]
    magnitude = np.minimum(np.abs(numbers), grid[-1])
    above = np.clip(np.searchsorted(grid, magnitude), 1, len(grid) - 1)
    below = above - 1
    to_above, to_below = grid[above] - magnitude, magnitude - grid[below]
    code = np.where((to_above < to_below) | ((to_above == to_below) & (above % 2 == 0)), above, below)
    negative = np.signbit(numbers)
    if np.isnan(table[len(table) // 2]):  # the code of a negative zero is NaN
        negative = negative & (code != 0)
    codes: NDArray[np.uint8] = (code | negative * (len(table) // 2)).astype(np.uint8)
    return codes
