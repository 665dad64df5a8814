"""Meaning of matrix-core instructions (MFMA): 16 x 16 tiles, plain and scaled.

What lane and element mean, as this package understands the hardware: lane ``16 g + i`` holds row ``i`` of the first
operand (column ``i`` of the second) and, of ``n`` elements, k = ``n g`` to ``n g + n - 1``; register ``r`` of the
result in lane ``16 g + j`` is row ``4 g + r``, column ``j``. The 128-deep instruction with 8-bit operands splits k:
bytes 0 to 15 are k = ``16 g`` …, bytes 16 to 31 are ``64 + 16 g`` … ; the scale of a lane is that of its row and of
k = ``32 g`` to ``32 g + 31``. Sums are float32, in an order of their own.

Operands are words of shape ``[waves, 64, registers]``, results have the shape ``[4, waves, 64]``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.emulator.number_formats import BF8_OF_ARCH, E2M1, FP8_OF_ARCH, bf16_to_float

Words = NDArray[np.uint32]
Tile = NDArray[np.float32]
Decode = Callable[[Words, str], Tile]
"""Words of a lane, shape (…, words), and the GPU, to its elements, shape (…, elements)."""

LANES, GROUPS, ROWS = 64, 4, 16
DEPTH = 128


def _float8(words: Words, arch: str) -> Tile:
    return FP8_OF_ARCH[arch].astype(np.float32)[words.view(np.uint8)]


def _brain8(words: Words, arch: str) -> Tile:
    return BF8_OF_ARCH[arch].astype(np.float32)[words.view(np.uint8)]


def _int8(words: Words, arch: str) -> Tile:
    return words.view(np.int8).astype(np.float32)


def _bf16(words: Words, arch: str) -> Tile:
    return bf16_to_float(words.view(np.uint16))


def _f16(words: Words, arch: str) -> Tile:
    return words.view(np.float16).astype(np.float32)


def _float4(words: Words, arch: str) -> Tile:
    codes = words.view(np.uint8)
    return E2M1.astype(np.float32)[np.stack([codes & 15, codes >> 4], -1).reshape(*codes.shape[:-1], -1)]


@dataclass(frozen=True, slots=True)
class PlainMfma:
    """Formats of an unscaled instruction, and the registers of an operand."""

    first: Decode
    second: Decode
    registers: int
    whole_numbers: bool = False


PLAIN: dict[str, PlainMfma] = {
    "f32_16x16x32_fp8_fp8": PlainMfma(_float8, _float8, 2),
    "f32_16x16x32_fp8_bf8": PlainMfma(_float8, _brain8, 2),
    "f32_16x16x32_bf8_fp8": PlainMfma(_brain8, _float8, 2),
    "f32_16x16x32_bf8_bf8": PlainMfma(_brain8, _brain8, 2),
    "i32_16x16x32_i8": PlainMfma(_int8, _int8, 2, whole_numbers=True),
    "f32_16x16x16_bf16": PlainMfma(_bf16, _bf16, 2),
    "f32_16x16x16_f16": PlainMfma(_f16, _f16, 2),
    "f32_16x16x32_bf16": PlainMfma(_bf16, _bf16, 4),
    "f32_16x16x32_f16": PlainMfma(_f16, _f16, 4),
}
DECODERS: dict[str, Decode] = {"fp8": _float8, "bf8": _brain8, "fp4": _float4}
REGISTERS = {"fp8": 8, "bf8": 8, "fp4": 4}
"""Registers of an operand of the 128-deep instruction, by format."""


def plain_product(kind: PlainMfma, first: Words, second: Words, arch: str) -> Tile:
    """Return the product of an unscaled instruction, without its addend."""
    rows, columns = _rows(kind.first(first, arch)), _rows(kind.second(second, arch))
    return _to_lanes(rows @ columns.transpose(0, 2, 1))


@dataclass(frozen=True, slots=True)
class ScaledOperand:
    """Operand of the 128-deep instruction: its format, words and e8m0 scales.

    Scales have the shape ``[waves, 64]``.
    """

    code: str
    words: Words
    scales: NDArray[np.uint8]

    def tile(self, arch: str) -> Tile:
        """Return the scaled elements, shape ``[waves, 16, 128]``."""
        waves = len(self.words)
        exponent = self.scales.astype(np.float32) - np.float32(127)
        by_row = np.exp2(exponent).reshape(waves, GROUPS, ROWS).transpose(0, 2, 1)
        tile: Tile = _deep(DECODERS[self.code](self.words, arch), self.code) * np.repeat(by_row, 32, 2)
        return tile


def scaled_product(first: ScaledOperand, second: ScaledOperand, arch: str) -> Tile:
    """Return the product of the 128-deep instruction, without its addend."""
    return _to_lanes(first.tile(arch) @ second.tile(arch).transpose(0, 2, 1))


def operand_k(code: str) -> NDArray[np.intp]:
    """Return k of each lane group and element, shape (4, 32).

    Of the 128-deep instruction.
    """
    group, element = np.arange(GROUPS)[:, None], np.arange(32)[None, :]
    if code == "fp4":
        return group * 32 + element
    return np.where(element < 16, 16 * group + element, 48 + 16 * group + element)


def _rows(elements: Tile) -> Tile:
    """Return tiles, shape (waves, 16, k), of elements, shape (waves, 64, n)."""
    waves, _, count = elements.shape
    return elements.reshape(waves, GROUPS, ROWS, count).transpose(0, 2, 1, 3).reshape(waves, ROWS, GROUPS * count)


def _deep(elements: Tile, code: str) -> Tile:
    waves = len(elements)
    tile = np.empty((waves, ROWS, DEPTH), np.float32)
    grouped = elements.reshape(waves, GROUPS, ROWS, 32)
    for group, k in enumerate(operand_k(code)):
        tile[:, :, k] = grouped[:, group]
    return tile


def _to_lanes(tiles: Tile) -> Tile:
    """Return registers, shape (4, waves, 64), of result tiles, shape (waves, 16, 16)."""
    waves = len(tiles)
    return tiles.reshape(waves, GROUPS, 4, ROWS).transpose(2, 0, 1, 3).reshape(4, waves, LANES)
