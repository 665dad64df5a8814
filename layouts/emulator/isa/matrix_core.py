"""Matrix-core instructions (MFMA): 16 x 16 tiles, plain and scaled.

What lane and element mean, as this package understands the hardware: lane ``16 g + i`` holds row ``i`` of the first
operand (column ``i`` of the second) and, of ``n`` elements, k = ``n g`` to ``n g + n - 1``; register ``r`` of the
result in lane ``16 g + j`` is row ``4 g + r``, column ``j``. The 128-deep instruction with 8-bit operands splits k:
bytes 0 to 15 are k = ``16 g`` …, bytes 16 to 31 are ``64 + 16 g`` … ; the scale of a lane is that of its row and of
k = ``32 g`` to ``32 g + 31``. Sums are float32, in an order of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.emulator.isa.instructions import Instruction
from preshuffle.layouts.emulator.isa.operands import (
    FIRST_VECTOR,
    VectorSource,
    unmodelled,
    vector_register,
    vector_source,
)
from preshuffle.layouts.emulator.isa.waves import LANES, Waves, Words
from preshuffle.layouts.emulator.number_formats import BF8_OF_ARCH, E2M1, FP8_OF_ARCH, bf16_to_float

Run = Callable[[Waves], None]
Tile = NDArray[np.float32]
Addend = Callable[[Waves], NDArray[np.float32] | NDArray[np.int64]]
Decode = Callable[[Words, str], Tile]
"""Words of a lane, shape (…, words), and the GPU, to its elements, shape (…, elements)."""

GROUPS, ROWS = 4, 16
ACCUMULATORS = 256
DEPTH = 128
SCALED_CODES = {0: ("fp8", 8), 1: ("bf8", 8), 4: ("fp4", 4)}
"""Formats that ``cbsz`` and ``blgp`` name, and the registers of an operand."""


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
    "v_mfma_f32_16x16x32_fp8_fp8": PlainMfma(_float8, _float8, 2),
    "v_mfma_f32_16x16x32_fp8_bf8": PlainMfma(_float8, _brain8, 2),
    "v_mfma_f32_16x16x32_bf8_fp8": PlainMfma(_brain8, _float8, 2),
    "v_mfma_f32_16x16x32_bf8_bf8": PlainMfma(_brain8, _brain8, 2),
    "v_mfma_i32_16x16x32_i8": PlainMfma(_int8, _int8, 2, whole_numbers=True),
    "v_mfma_f32_16x16x16_bf16": PlainMfma(_bf16, _bf16, 2),
    "v_mfma_f32_16x16x16_f16": PlainMfma(_f16, _f16, 2),
    "v_mfma_f32_16x16x32_bf16": PlainMfma(_bf16, _bf16, 4),
    "v_mfma_f32_16x16x32_f16": PlainMfma(_f16, _f16, 4),
}
SCALED = "v_mfma_scale_f32_16x16x128_f8f6f4"
DECODERS: dict[str, Decode] = {"fp8": _float8, "bf8": _brain8, "fp4": _float4}


def compile_matrix(instruction: Instruction) -> Run:
    """Return the function that runs a matrix instruction.

    Raises:
        UnmodelledInstructionError: it is none that the emulator knows.
    """
    if instruction.name in PLAIN:
        return _plain(instruction, PLAIN[instruction.name])
    if instruction.name == SCALED:
        return _scaled(instruction)
    raise unmodelled(instruction)


def operand_k(code: str) -> NDArray[np.intp]:
    """Return k of each lane group and element, shape (4, 32).

    Of the 128-deep instruction.
    """
    group, element = np.arange(GROUPS)[:, None], np.arange(32)[None, :]
    if code == "fp4":
        return group * 32 + element
    return np.where(element < 16, 16 * group + element, 48 + 16 * group + element)


def _plain(instruction: Instruction, kind: PlainMfma) -> Run:
    fields = instruction.fields
    if fields["cbsz"] or fields["abid"] or fields["blgp"]:
        raise unmodelled(instruction, "a broadcast between blocks")
    first = _operand(instruction, "src0", fields["acc"] & 1, kind.registers)
    second = _operand(instruction, "src1", fields["acc"] >> 1 & 1, kind.registers)
    start, store = _addend(instruction, kind.whole_numbers), _result(instruction)

    def run(waves: Waves) -> None:
        rows = _rows(kind.first(first(waves), waves.arch))
        columns = _rows(kind.second(second(waves), waves.arch))
        product = _to_lanes(rows @ columns.transpose(0, 2, 1))
        if kind.whole_numbers:
            store(waves, (product.astype(np.int64) + start(waves)).astype(np.int32).view(np.uint32))
        else:
            store(waves, (product + start(waves)).astype(np.float32).view(np.uint32))

    return run


def _scaled(instruction: Instruction) -> Run:
    fields = instruction.fields
    if fields["cbsz"] not in SCALED_CODES or fields["blgp"] not in SCALED_CODES:
        raise unmodelled(instruction, f"formats {fields['cbsz']} and {fields['blgp']}")
    (code_a, words_a), (code_b, words_b) = SCALED_CODES[fields["cbsz"]], SCALED_CODES[fields["blgp"]]
    first = _operand(instruction, "src0", fields["acc"] & 1, words_a)
    second = _operand(instruction, "src1", fields["acc"] >> 1 & 1, words_b)
    scale_a, scale_b = (_scale(instruction, index) for index in (0, 1))
    start, store = _addend(instruction, False), _result(instruction)

    def run(waves: Waves) -> None:
        rows = _deep(DECODERS[code_a](first(waves), waves.arch), code_a) * scale_a(waves)
        columns = _deep(DECODERS[code_b](second(waves), waves.arch), code_b) * scale_b(waves)
        product = _to_lanes(rows @ columns.transpose(0, 2, 1))
        store(waves, (product + start(waves)).astype(np.float32).view(np.uint32))

    return run


def _operand(instruction: Instruction, field: str, accumulator: int, registers: int) -> VectorSource:
    first = vector_register(instruction, instruction.fields[field]) + accumulator * ACCUMULATORS
    return lambda waves: np.ascontiguousarray(np.moveaxis(waves.vectors[first : first + registers], 0, -1))


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


def _scale(instruction: Instruction, index: int) -> Callable[[Waves], Tile]:
    """Scales of an operand, shape (waves, 16, 128): a byte (e8m0) of a register, chosen by op_sel."""
    fields = instruction.fields
    source = vector_source(instruction, fields[f"scale_src{index}"])
    byte = (fields["opsel"] >> index & 1) + 2 * (fields["opsel_hi"] >> index & 1)
    shift = np.uint32(8 * byte)

    def scales(waves: Waves) -> Tile:
        words = np.broadcast_to(source(waves), (waves.count, LANES))
        exponent = (words >> shift & np.uint32(255)).astype(np.float32) - np.float32(127)
        by_row = np.exp2(exponent).reshape(waves.count, GROUPS, ROWS).transpose(0, 2, 1)
        return np.repeat(by_row, 32, 2)

    return scales


def _addend(
    instruction: Instruction, whole_numbers: bool
) -> Callable[[Waves], NDArray[np.float32] | NDArray[np.int64]]:
    """Third operand: four registers, shape (4, waves, 64), or a constant."""
    operand, shift = instruction.fields["src2"], instruction.fields["acc_cd"] * ACCUMULATORS
    if operand < FIRST_VECTOR:
        constant = vector_source(instruction, operand)
        return lambda waves: _numbers(constant(waves), whole_numbers)
    first = vector_register(instruction, operand) + shift
    return lambda waves: _numbers(waves.vectors[first : first + 4], whole_numbers)


def _numbers(words: Words, whole_numbers: bool) -> NDArray[np.float32] | NDArray[np.int64]:
    return words.view(np.int32).astype(np.int64) if whole_numbers else words.view(np.float32)


def _result(instruction: Instruction) -> Callable[[Waves, Words], None]:
    register = vector_register(instruction, instruction.fields["vdst"]) + instruction.fields["acc_cd"] * ACCUMULATORS

    def store(waves: Waves, words: Words) -> None:
        for index in range(4):
            waves.set_vector(register + index, words[index])

    return store


def _to_lanes(tiles: Tile) -> Tile:
    """Return registers, shape (4, waves, 64), of result tiles, shape (waves, 16, 16)."""
    waves = len(tiles)
    return tiles.reshape(waves, GROUPS, 4, ROWS).transpose(2, 0, 1, 3).reshape(4, waves, LANES)
