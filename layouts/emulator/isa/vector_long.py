"""Vector instructions on 64-bit integers, and the one with a truth table.

Each is compared with AMD's pseudocode, written out in Python's integers, by ``tests/layouts/emulator/test_long.py``.
"""

from collections.abc import Callable

import numpy as np

from preshuffle.layouts.emulator.isa.instructions import Instruction
from preshuffle.layouts.emulator.isa.operands import (
    FIRST_VECTOR,
    LongSource,
    long_source,
    unmodelled,
    vector_register,
    vector_source,
)
from preshuffle.layouts.emulator.isa.waves import LANES, Longs, Waves, Words

Run = Callable[[Waves], None]
WORD = np.uint64(32)
LOW = np.uint64(0xFFFFFFFF)


def _bit_operation(instruction: Instruction) -> Run:
    """`v_bitop3_b32`: truth table in place of modifiers."""
    fields = instruction.fields
    table = fields.get("omod", 0) << 6 | fields.get("abs", 0) << 3 | fields.get("neg", 0)
    first, second, third = (vector_source(instruction, fields[f"src{index}"]) for index in range(3))
    register = vector_register(instruction, fields["vdst"])

    def run(waves: Waves) -> None:
        a, b, c = first(waves), second(waves), third(waves)
        result: Words = np.zeros(np.broadcast_shapes(a.shape, b.shape, c.shape), np.uint32)
        for row in range(8):
            if table >> row & 1:
                result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
        waves.set_vector(register, result)

    return run


def _shift_add(instruction: Instruction) -> Run:
    """`v_lshl_add_u64`: shifted by 0 to 7 places, then added."""
    fields = instruction.fields
    _check(instruction)
    first, third = _long(instruction, fields["src0"]), _long(instruction, fields["src2"])
    shift = vector_source(instruction, fields["src1"])
    register = vector_register(instruction, fields["vdst"])
    return lambda waves: _store(waves, register, (first(waves) << _wide(shift(waves) & np.uint32(7))) + third(waves))


def _multiply_add(instruction: Instruction) -> Run:
    """`v_mad_u64_u32`: product plus sum, with a carry mask."""
    fields = instruction.fields
    _check(instruction)
    first, second = (vector_source(instruction, fields[f"src{index}"]) for index in range(2))
    third, register = _long(instruction, fields["src2"]), vector_register(instruction, fields["vdst"])
    carry = fields["sdst"]

    def run(waves: Waves) -> None:
        product, added = _wide(first(waves)) * _wide(second(waves)), third(waves)
        result = product + added
        waves.set_lane_bits(carry, np.broadcast_to(result < product, (waves.count, LANES)))
        _store(waves, register, result)

    return run


def _check(instruction: Instruction) -> None:
    if any(instruction.fields.get(modifier, 0) for modifier in ("omod", "abs", "neg", "clmp", "opsel")):
        raise unmodelled(instruction, "a modifier")


def _wide(words: Words) -> Longs:
    return words.astype(np.uint64)


def _long(instruction: Instruction, operand: int) -> LongSource:
    """Return a reader of a 64-bit source that broadcasts to (waves, 64)."""
    if operand >= FIRST_VECTOR:
        register = operand - FIRST_VECTOR
        return lambda waves: _wide(waves.vectors[register]) | _wide(waves.vectors[register + 1]) << WORD
    source = long_source(instruction, operand)
    return lambda waves: source(waves)[:, None]


def _store(waves: Waves, register: int, result: Longs) -> None:
    waves.set_vector(register, (result & LOW).astype(np.uint32))
    waves.set_vector(register + 1, (result >> WORD).astype(np.uint32))


LONG: dict[str, Callable[[Instruction], Run]] = {
    "v_bitop3_b32": _bit_operation,
    "v_lshl_add_u64": _shift_add,
    "v_mad_u64_u32": _multiply_add,
}
