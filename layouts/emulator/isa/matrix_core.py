"""Matrix-core instructions (MFMA) of code objects: operands, scales and results in registers."""

from collections.abc import Callable

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
from preshuffle.layouts.emulator.matrix_tiles import (
    PLAIN,
    REGISTERS,
    PlainMfma,
    ScaledOperand,
    plain_product,
    scaled_product,
)

Run = Callable[[Waves], None]

ACCUMULATORS = 256
SCALED_CODES = {0: "fp8", 1: "bf8", 4: "fp4"}
"""Formats that ``cbsz`` and ``blgp`` name."""

PREFIX = "v_mfma_"
SCALED = "v_mfma_scale_f32_16x16x128_f8f6f4"


def compile_matrix(instruction: Instruction) -> Run:
    """Return the function that runs a matrix instruction.

    Raises:
        UnmodelledInstructionError: it is none that the emulator knows.
    """
    kind = PLAIN.get(instruction.name.removeprefix(PREFIX))
    if kind is not None:
        return _plain(instruction, kind)
    if instruction.name == SCALED:
        return _scaled(instruction)
    raise unmodelled(instruction)


def _plain(instruction: Instruction, kind: PlainMfma) -> Run:
    fields = instruction.fields
    if fields["cbsz"] or fields["abid"] or fields["blgp"]:
        raise unmodelled(instruction, "a broadcast between blocks")
    first = _operand(instruction, "src0", fields["acc"] & 1, kind.registers)
    second = _operand(instruction, "src1", fields["acc"] >> 1 & 1, kind.registers)
    start, store = _addend(instruction, kind.whole_numbers), _result(instruction)

    def run(waves: Waves) -> None:
        product = plain_product(kind, first(waves), second(waves), waves.arch)
        if kind.whole_numbers:
            store(waves, (product.astype(np.int64) + start(waves)).astype(np.int32).view(np.uint32))
        else:
            store(waves, (product + start(waves)).astype(np.float32).view(np.uint32))

    return run


def _scaled(instruction: Instruction) -> Run:
    fields = instruction.fields
    if fields["cbsz"] not in SCALED_CODES or fields["blgp"] not in SCALED_CODES:
        raise unmodelled(instruction, f"formats {fields['cbsz']} and {fields['blgp']}")
    code_a, code_b = SCALED_CODES[fields["cbsz"]], SCALED_CODES[fields["blgp"]]
    first = _operand(instruction, "src0", fields["acc"] & 1, REGISTERS[code_a])
    second = _operand(instruction, "src1", fields["acc"] >> 1 & 1, REGISTERS[code_b])
    scale_a, scale_b = (_scale(instruction, index) for index in (0, 1))
    start, store = _addend(instruction, False), _result(instruction)

    def run(waves: Waves) -> None:
        product = scaled_product(
            ScaledOperand(code_a, first(waves), scale_a(waves)),
            ScaledOperand(code_b, second(waves), scale_b(waves)),
            waves.arch,
        )
        store(waves, (product + start(waves)).astype(np.float32).view(np.uint32))

    return run


def _operand(instruction: Instruction, field: str, accumulator: int, registers: int) -> VectorSource:
    first = vector_register(instruction, instruction.fields[field]) + accumulator * ACCUMULATORS
    return lambda waves: np.ascontiguousarray(np.moveaxis(waves.vectors[first : first + registers], 0, -1))


def _scale(instruction: Instruction, index: int) -> Callable[[Waves], NDArray[np.uint8]]:
    """Scales of an operand, shape (waves, 64): a byte (e8m0) of a register, chosen by op_sel."""
    fields = instruction.fields
    source = vector_source(instruction, fields[f"scale_src{index}"])
    byte = (fields["opsel"] >> index & 1) + 2 * (fields["opsel_hi"] >> index & 1)
    shift = np.uint32(8 * byte)

    def scales(waves: Waves) -> NDArray[np.uint8]:
        words = np.broadcast_to(source(waves), (waves.count, LANES))
        return (words >> shift & np.uint32(255)).astype(np.uint8)

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
