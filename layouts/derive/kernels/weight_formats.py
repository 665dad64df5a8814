"""Number formats of weights and activations: codes, bytes and levels for tagging.

A tensor of codes has one number per element, shape ``[experts, rows, K]``; as bytes two 4-bit codes share a byte, the
even k in the low half.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preshuffle.layouts.emulator import (
    E2M1,
    FP8_OF_ARCH,
    bf16_to_float,
    float_to_bf16,
    float_to_code,
)

Codes = NDArray[np.uint16]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Encode = Callable[[ArrayLike, str], Codes]
Decode = Callable[[Codes, str], Floats]


@dataclass(frozen=True, slots=True)
class Levels:
    """Weights that a kernel's output distinguishes, as gate and as up.

    Attributes:
        weights: a power of two of them; ``silu(gate) up`` of their products differs for every pair.
        activation: what multiplies them, as does
        scale: that of weights.
        tolerance: relative distance of an output from its level; None for a third of the smallest gap.
    """

    weights: tuple[float, ...]
    activation: float = 1.0
    scale: float = 1.0
    tolerance: float | None = None

    @property
    def products(self) -> Floats:
        """Gates and ups that the levels give."""
        return np.array(self.weights) * self.activation * self.scale

    @property
    def bits(self) -> int:
        """Bits of an address that one run reads."""
        return len(self.weights).bit_length() - 1


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """Number format of a kernel's weights.

    Attributes:
        bits: of an element.
        fine: levels for outputs in 16 bits.
        coarse: levels for outputs in fp8.
        signs: two levels that rounding to fp4 or int8 between the stages leaves apart.
        linear: levels of w2, whose products are the output.
        unit_scale: scale at which random layers have outputs of ordinary size.
        packed_after_layout: whether elements are laid out as bytes, and groups of 8 then packed into 4 bytes.
    """

    name: str
    bits: int
    encode: Encode
    decode: Decode
    fine: Levels
    coarse: Levels
    signs: Levels = Levels((-2.0, 2.0))
    linear: Levels = Levels((-4.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 4.0))
    unit_scale: float = 1.0
    packed_after_layout: bool = False

    @property
    def unit_bits(self) -> int:
        """Bits of an element while it is laid out."""
        return 8 if self.packed_after_layout else self.bits

    def units_of_k(self, k: int) -> int:
        """Return the bytes of ``k`` elements while they are laid out."""
        return k * self.unit_bits // 8

    def pack(self, codes: Codes) -> Bytes:
        """Return codes as bytes; the last axis is K."""
        if self.bits == 16:
            return np.ascontiguousarray(codes.astype(np.uint16)).view(np.uint8)
        if self.bits == 4:
            return (codes[..., 0::2] | codes[..., 1::2] << 4).astype(np.uint8)
        return codes.astype(np.uint8)

    def unit_bytes(self, codes: Codes) -> Bytes:
        """Return codes as the bytes that a layout orders."""
        return codes.astype(np.uint8) if self.packed_after_layout else self.pack(codes)

    def pack_units(self, units: Bytes) -> Bytes:
        """Return laid-out bytes as they lie in memory.

        Byte i of 4 holds elements i and i + 4 of 8.
        """
        if not self.packed_after_layout:
            return units
        groups = units.reshape(-1, 2, 4)
        packed: Bytes = (groups[:, 0] | groups[:, 1] << np.uint8(4)).reshape(-1)
        return packed

    def unit_positions(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the places of packed elements before they were packed.

        By positions in memory.
        """
        if not self.packed_after_layout:
            return positions
        inside = positions % 8
        return np.where(positions < 0, positions, positions - inside + inside // 2 + inside % 2 * 4)

    def random(self, generator: np.random.Generator, shape: tuple[int, ...], arch: str) -> Codes:
        """Return random finite codes of moderate size."""
        if self.bits == 4:
            return generator.integers(0, 16, shape).astype(np.uint16)
        if self.name == "int8":
            return self.encode(generator.integers(-127, 128, shape), arch)
        return self.encode(generator.standard_normal(shape), arch)

    def bytes_of_k(self, k: int) -> int:
        """Return the bytes of ``k`` elements."""
        return k * self.bits // 8


def _encode_fp8(values: ArrayLike, arch: str) -> Codes:
    return float_to_code(values, FP8_OF_ARCH[arch]).astype(np.uint16)


def _decode_fp8(codes: Codes, arch: str) -> Floats:
    return FP8_OF_ARCH[arch][codes]


def _encode_int8(values: ArrayLike, arch: str) -> Codes:
    return np.asarray(values, np.float64).astype(np.int8).view(np.uint8).astype(np.uint16)


def _decode_int8(codes: Codes, arch: str) -> Floats:
    return codes.astype(np.uint8).view(np.int8).astype(np.float64)


def _encode_int4(values: ArrayLike, arch: str) -> Codes:
    return np.asarray(values, np.float64).astype(np.int8).view(np.uint8).astype(np.uint16) & np.uint16(15)


def _decode_int4(codes: Codes, arch: str) -> Floats:
    return ((codes.astype(np.int64) ^ 8) - 8).astype(np.float64)


def _encode_fp4(values: ArrayLike, arch: str) -> Codes:
    return float_to_code(values, E2M1).astype(np.uint16)


def _decode_fp4(codes: Codes, arch: str) -> Floats:
    return E2M1[codes]


def _encode_bf16(values: ArrayLike, arch: str) -> Codes:
    return float_to_bf16(np.asarray(values, np.float32))


def _decode_bf16(codes: Codes, arch: str) -> Floats:
    return bf16_to_float(codes).astype(np.float64)


def _encode_f16(values: ArrayLike, arch: str) -> Codes:
    return np.asarray(values, np.float16).view(np.uint16)


def _decode_f16(codes: Codes, arch: str) -> Floats:
    return codes.astype(np.uint16).view(np.float16).astype(np.float64)


FLOAT_FINE = Levels((-7.5, -6.0, -4.5, -1.875, 0.25, 0.40625, 0.5625, 1.875), activation=2.0)
FLOAT_COARSE = Levels((-2.5, -0.8125, 0.6875, 2.75))
INT8_FINE = Levels((-120, -99, -88, -77, -38, 9, 14, 92), activation=16, scale=1 / 128)
INT4_FINE = Levels((-8, -7, -6, -5, -4, 1, 2, 7))
FP4_FINE = Levels((-4.0, -0.5, 0.5, 4.0))
FP4_COARSE = Levels((-4.0, 4.0))
"""Found by a search for the largest relative distance between any two outputs: 6 % and more for the fine ones."""

FORMATS = {
    "fp8": WeightFormat("fp8", 8, _encode_fp8, _decode_fp8, FLOAT_FINE, FLOAT_COARSE),
    "int8": WeightFormat(
        *("int8", 8, _encode_int8, _decode_int8, INT8_FINE, INT8_FINE),
        signs=Levels((-16.0, 16.0), activation=16, scale=1 / 128),
        linear=Levels((-64.0, -32.0, -16.0, -8.0, 8.0, 16.0, 32.0, 64.0), scale=1 / 128),
        unit_scale=1 / 128,
    ),
    "int4": WeightFormat(
        *("int4", 4, _encode_int4, _decode_int4, INT4_FINE, FP4_COARSE),
        linear=Levels((-8.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0, 7.0)),
        packed_after_layout=True,
    ),
    "fp4": WeightFormat(
        *("fp4", 4, _encode_fp4, _decode_fp4, FP4_FINE, FP4_COARSE),
        signs=Levels((-1.0, 1.0)),  # of gelu (-2) fp4 would leave nothing
    ),
    "bf16": WeightFormat("bf16", 16, _encode_bf16, _decode_bf16, FLOAT_FINE, FLOAT_COARSE),
    "f16": WeightFormat("f16", 16, _encode_f16, _decode_f16, FLOAT_FINE, FLOAT_COARSE),
}
