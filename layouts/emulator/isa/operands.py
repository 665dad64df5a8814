"""Operands of instructions: how sources are read and modified.

A source is compiled once into a function from the waves' state to an array that broadcasts to (waves, 64) for vector
instructions and to (waves,) for scalar ones.
"""

import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.emulator.errors import UnmodelledInstructionError
from preshuffle.layouts.emulator.isa.instructions import Instruction
from preshuffle.layouts.emulator.isa.waves import EXEC, LANES, M0, VCC, Longs, Waves, Words

FIRST_VECTOR = 256
FIRST_ACCUMULATOR = 512
"""Operand number of the first accumulation register, as this package counts them."""

LITERAL, SCC = 255, 253
FLOAT_CONSTANTS = {240: 0.5, 241: -0.5, 242: 1.0, 243: -1.0, 244: 2.0, 245: -2.0, 246: 4.0, 247: -4.0}
ONE_OVER_TWO_PI = 0x3E22F983
SIGN_BIT = np.uint32(0x80000000)

VectorSource = Callable[[Waves], Words]
ScalarSource = Callable[[Waves], Words]
LongSource = Callable[[Waves], Longs]


def unmodelled(instruction: Instruction, what: str = "") -> UnmodelledInstructionError:
    """Return the error for an instruction that is not modelled."""
    return UnmodelledInstructionError(f"{instruction}{': ' if what else ''}{what} is not modelled")


def is_scalar_register(operand: int) -> bool:
    """Return whether an operand is a register of one word per wave."""
    return operand < 106 or operand in (VCC, VCC + 1, M0, EXEC, EXEC + 1)


def constant(instruction: Instruction, operand: int) -> int:
    """Return the 32 bits of an inline constant or literal."""
    if 128 <= operand <= 192:
        return operand - 128
    if 193 <= operand <= 208:
        return (192 - operand) & 0xFFFFFFFF
    if operand in FLOAT_CONSTANTS:
        (bits,) = struct.unpack("<I", struct.pack("<f", FLOAT_CONSTANTS[operand]))
        return int(bits)
    if operand == 248:
        return ONE_OVER_TWO_PI
    if operand == LITERAL and "literal" in instruction.fields:
        return instruction.fields["literal"]
    raise unmodelled(instruction, f"operand {operand}")


def scalar_source(instruction: Instruction, operand: int) -> ScalarSource:
    """Return a reader of a 32-bit scalar source; shape (waves,) or (1,)."""
    if is_scalar_register(operand):
        return lambda waves: waves.scalars[operand]
    if operand == SCC:
        return lambda waves: waves.scc.astype(np.uint32)
    value = np.array([constant(instruction, operand)], np.uint32)
    return lambda waves: value


def long_source(instruction: Instruction, operand: int) -> LongSource:
    """Return a reader of a 64-bit scalar source.

    Integer constants are sign-extended, literals are not.
    """
    if is_scalar_register(operand):
        return lambda waves: waves.long(operand)
    if operand in FLOAT_CONSTANTS:
        raise unmodelled(instruction, "a 64-bit float constant")
    word = constant(instruction, operand)
    extended = word | 0xFFFFFFFF << 32 if operand != LITERAL and word >> 31 else word
    value = np.array([extended], np.uint64)
    return lambda waves: value


def vector_source(instruction: Instruction, operand: int, word: int = 0) -> VectorSource:
    """Return a reader of one word of a vector source.

    What it reads broadcasts to (waves, 64).
    """
    if operand >= FIRST_VECTOR:
        register = operand - FIRST_VECTOR + word
        return lambda waves: waves.vectors[register]
    if is_scalar_register(operand):
        scalar = operand + word
        return lambda waves: waves.scalars[scalar][:, None]
    value = np.array([[constant(instruction, operand)]], np.uint32)
    return lambda waves: value


def vector_register(instruction: Instruction, operand: int) -> int:
    """Return the row of a vector register that an operand names."""
    if operand < FIRST_VECTOR:
        raise unmodelled(instruction, f"operand {operand} as a vector register")
    return operand - FIRST_VECTOR


def with_signs(source: VectorSource, absolute: bool, negative: bool) -> VectorSource:
    """Return a float source with its modifiers applied."""
    if absolute and negative:
        return lambda waves: source(waves) | SIGN_BIT
    if absolute:
        return lambda waves: source(waves) & ~SIGN_BIT
    if negative:
        return lambda waves: source(waves) ^ SIGN_BIT
    return source


def with_lanes_of(instruction: Instruction, source: VectorSource) -> VectorSource:
    """Return a source whose lanes are moved as a DPP instruction says."""
    fields = instruction.fields
    control = fields["dpp"]
    if fields["row_mask"] != 15 or fields["bank_mask"] != 15:
        raise unmodelled(instruction, "DPP with some rows or banks off")
    lane = np.arange(LANES)
    if control <= 0xFF:
        pick = lane & ~3 | control >> 2 * (lane & 3) & 3
    elif control >> 4 == 0x15:
        pick = lane & ~15 | control & 15
    else:
        raise unmodelled(instruction, f"DPP control {control:#x}")
    return lambda waves: np.broadcast_to(source(waves), (waves.count, LANES))[:, pick]


def with_part(instruction: Instruction, source: VectorSource, select: int, signed: bool) -> VectorSource:
    """Return a byte or half of a source, as SDWA selects it.

    0 to 3 are bytes, 4 and 5 halves, 6 is the whole word.
    """
    if select == 6:
        return source
    if select > 6:
        raise unmodelled(instruction, f"SDWA selection {select}")
    bits = 8 if select < 4 else 16
    shift = np.uint32(8 * select if select < 4 else 16 * (select - 4))
    keep, top = np.uint32((1 << bits) - 1), np.uint32(1 << bits - 1 if signed else 0)
    return lambda waves: ((source(waves) >> shift & keep) ^ top) - top


def floats(words: Words) -> NDArray[np.float32]:
    """Return words as float32 of the same shape."""
    return words.view(np.float32)


def words_of(values: NDArray[np.float32]) -> Words:
    """Return float32 as words of the same shape."""
    return values.astype(np.float32, copy=False).view(np.uint32)
