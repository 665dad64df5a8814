"""Scalar instructions: arithmetic, comparisons, moves, and loads of arguments."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.emulator.isa.instructions import Instruction
from preshuffle.layouts.emulator.isa.operands import (
    long_source,
    scalar_source,
    unmodelled,
)
from preshuffle.layouts.emulator.isa.waves import EXEC, Longs, Mask, Waves, Words

Run = Callable[[Waves], None]
Signed = NDArray[np.int64]
Outcome = tuple[Signed, Mask | None]
"""Result before it is cut to its width, and the condition code, None where it stays."""

BITS = 32
HALF = np.uint64(32)
LIMIT = 1 << BITS


def _nonzero(result: Signed) -> Outcome:
    return result, (result & LIMIT - 1) != 0


def _signed(words: Signed) -> Signed:
    return (words ^ 1 << 31) - (1 << 31)


def _overflowing(result: Signed) -> Outcome:
    return result, (result < -(1 << 31)) | (result >= 1 << 31)


def _multiply_high(first: Signed, second: Signed) -> Signed:
    return (first.astype(np.uint64) * second.astype(np.uint64) >> HALF).astype(np.int64)


def _field(first: Signed, second: Signed) -> tuple[Signed, Signed]:
    width = second >> 16 & 127
    return first >> (second & 31) & (1 << np.minimum(width, 32)) - 1, width


def _extract_signed(first: Signed, second: Signed, scc: Signed) -> Outcome:
    value, width = _field(_signed(first), second)
    top = np.where(width > 0, 1 << np.maximum(np.minimum(width, 32) - 1, 0), 0)
    return _nonzero((value ^ top) - top)


BINARY: dict[str, Callable[[Signed, Signed, Signed], Outcome]] = {
    "s_add_u32": lambda a, b, scc: (a + b, a + b >= LIMIT),
    "s_sub_u32": lambda a, b, scc: (a - b, b > a),
    "s_addc_u32": lambda a, b, scc: (a + b + scc, a + b + scc >= LIMIT),
    "s_subb_u32": lambda a, b, scc: (a - b - scc, b + scc > a),
    "s_add_i32": lambda a, b, scc: _overflowing(_signed(a) + _signed(b)),
    "s_sub_i32": lambda a, b, scc: _overflowing(_signed(a) - _signed(b)),
    "s_mul_i32": lambda a, b, scc: (_signed(a) * _signed(b), None),
    "s_mul_hi_u32": lambda a, b, scc: (_multiply_high(a, b), None),
    "s_mul_hi_i32": lambda a, b, scc: (_signed(a) * _signed(b) >> 32, None),
    "s_lshl1_add_u32": lambda a, b, scc: ((a << 1) + b, (a << 1) + b >= LIMIT),
    "s_lshl2_add_u32": lambda a, b, scc: ((a << 2) + b, (a << 2) + b >= LIMIT),
    "s_lshl3_add_u32": lambda a, b, scc: ((a << 3) + b, (a << 3) + b >= LIMIT),
    "s_lshl4_add_u32": lambda a, b, scc: ((a << 4) + b, (a << 4) + b >= LIMIT),
    "s_min_u32": lambda a, b, scc: (np.minimum(a, b), a < b),
    "s_max_u32": lambda a, b, scc: (np.maximum(a, b), a >= b),
    "s_min_i32": lambda a, b, scc: (np.minimum(_signed(a), _signed(b)), _signed(a) < _signed(b)),
    "s_max_i32": lambda a, b, scc: (np.maximum(_signed(a), _signed(b)), _signed(a) >= _signed(b)),
    "s_and_b32": lambda a, b, scc: _nonzero(a & b),
    "s_or_b32": lambda a, b, scc: _nonzero(a | b),
    "s_xor_b32": lambda a, b, scc: _nonzero(a ^ b),
    "s_andn2_b32": lambda a, b, scc: _nonzero(a & ~b),
    "s_lshl_b32": lambda a, b, scc: _nonzero(a << (b & 31)),
    "s_lshr_b32": lambda a, b, scc: _nonzero(a >> (b & 31)),
    "s_ashr_i32": lambda a, b, scc: _nonzero(_signed(a) >> (b & 31)),
    "s_bfe_u32": lambda a, b, scc: _nonzero(_field(a, b)[0]),
    "s_bfe_i32": _extract_signed,
    "s_cselect_b32": lambda a, b, scc: (np.where(scc != 0, a, b), None),
}

UNARY: dict[str, Callable[[Signed], Outcome]] = {
    "s_mov_b32": lambda a: (a, None),
    "s_not_b32": lambda a: _nonzero(~a),
    "s_abs_i32": lambda a: _nonzero(np.abs(_signed(a))),
    "s_sext_i32_i8": lambda a: ((a & 255 ^ 128) - 128, None),
    "s_sext_i32_i16": lambda a: ((a & 65535 ^ 32768) - 32768, None),
}

LONG_BINARY: dict[str, Callable[[Longs, Longs], Longs]] = {
    "s_and_b64": lambda a, b: a & b,
    "s_or_b64": lambda a, b: a | b,
    "s_xor_b64": lambda a, b: a ^ b,
    "s_andn2_b64": lambda a, b: a & ~b,
}
LONG_SHIFTS: dict[str, Callable[[Longs, Longs], Longs]] = {
    "s_lshl_b64": lambda a, b: a << (b & np.uint64(63)),
    "s_lshr_b64": lambda a, b: a >> (b & np.uint64(63)),
    "s_ashr_i64": lambda a, b: (a.view(np.int64) >> (b & np.uint64(63)).astype(np.int64)).view(np.uint64),
}
SAVING: dict[str, Callable[[Longs, Longs], Longs]] = {
    "s_and_saveexec_b64": lambda source, exec_mask: source & exec_mask,
    "s_or_saveexec_b64": lambda source, exec_mask: source | exec_mask,
}

COMPARISONS: dict[str, Callable[[Signed, Signed], Mask]] = {
    "eq": lambda a, b: a == b,
    "lg": lambda a, b: a != b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
}

CONSTANT: dict[str, Callable[[Signed, int], Outcome]] = {
    "s_movk_i32": lambda a, k: (np.full_like(a, k), None),
    "s_addk_i32": lambda a, k: _overflowing(_signed(a) + k),
    "s_mulk_i32": lambda a, k: (_signed(a) * k, None),
}


def compile_scalar(instruction: Instruction) -> Run:
    """Return the function that runs a scalar instruction.

    Raises:
        UnmodelledInstructionError: it is none that the emulator knows.
    """
    name = instruction.name
    if name in BINARY:
        return _binary(instruction)
    if name in UNARY:
        return _unary(instruction)
    if name.startswith(("s_cmp_", "s_cmpk_")):
        return _compare(instruction)
    if name in CONSTANT:
        return _with_constant(instruction)
    if name == "s_setvskip":
        return _skip_vectors(instruction)
    if name in ("s_mov_b64", "s_not_b64", "s_cselect_b64", *LONG_BINARY, *LONG_SHIFTS, *SAVING):
        return _long(instruction)
    raise unmodelled(instruction)


def _wide(words: Words) -> Signed:
    return words.astype(np.int64)


def _store(waves: Waves, register: int, outcome: Outcome) -> None:
    result, condition = outcome
    waves.set_scalar(register, (result & LIMIT - 1).astype(np.uint32))
    if condition is not None:
        waves.set_scc(condition)


def _binary(instruction: Instruction) -> Run:
    fields, function = instruction.fields, BINARY[instruction.name]
    register = fields["sdst"]
    first, second = (scalar_source(instruction, fields[name]) for name in ("ssrc0", "ssrc1"))

    def run(waves: Waves) -> None:
        _store(waves, register, function(_wide(first(waves)), _wide(second(waves)), waves.scc.astype(np.int64)))

    return run


def _unary(instruction: Instruction) -> Run:
    fields, function = instruction.fields, UNARY[instruction.name]
    register, source = fields["sdst"], scalar_source(instruction, fields["ssrc0"])
    return lambda waves: _store(waves, register, function(_wide(source(waves))))


def _with_constant(instruction: Instruction) -> Run:
    fields, function = instruction.fields, CONSTANT[instruction.name]
    register, value = fields["sdst"], (fields["simm16"] ^ 0x8000) - 0x8000
    return lambda waves: _store(waves, register, function(_wide(waves.scalars[register]), value))


def _compare(instruction: Instruction) -> Run:
    _, _, operation, kind = instruction.name.split("_")
    fields = instruction.fields
    if operation not in COMPARISONS or kind not in ("i32", "u32"):
        raise unmodelled(instruction)
    function, signed = COMPARISONS[operation], kind == "i32"
    if instruction.name.startswith("s_cmpk"):
        value = fields["simm16"]
        first = scalar_source(instruction, fields["sdst"])
        other = np.array([(value ^ 0x8000) - 0x8000 if signed else value], np.int64)
        return lambda waves: waves.set_scc(function(_as(first(waves), signed), other))
    first, second = (scalar_source(instruction, fields[name]) for name in ("ssrc0", "ssrc1"))
    return lambda waves: waves.set_scc(function(_as(first(waves), signed), _as(second(waves), signed)))


def _as(words: Words, signed: bool) -> Signed:
    return _signed(_wide(words)) if signed else _wide(words)


def _skip_vectors(instruction: Instruction) -> Run:
    fields = instruction.fields
    word, bit = (scalar_source(instruction, fields[name]) for name in ("ssrc0", "ssrc1"))

    def run(waves: Waves) -> None:
        skip = (word(waves) >> (bit(waves) & np.uint32(31)) & np.uint32(1)) != 0
        changed = np.where(waves.running, skip, waves.skips_vectors) if waves.running is not None else skip
        changed = np.broadcast_to(changed, waves.skips_vectors.shape)
        if (changed != waves.skips_vectors).any():
            waves.skips_vectors = changed.copy()
            waves.refresh_masks()

    return run


def _long(instruction: Instruction) -> Run:
    name, fields = instruction.name, instruction.fields
    register, first = fields["sdst"], long_source(instruction, fields["ssrc0"])
    if name == "s_mov_b64":
        return lambda waves: waves.set_long(register, first(waves))
    if name == "s_not_b64":
        return lambda waves: _store_long(waves, register, ~first(waves))
    if name in SAVING:
        return _save(register, first, SAVING[name])
    if name in LONG_SHIFTS:
        shift, amount = LONG_SHIFTS[name], scalar_source(instruction, fields["ssrc1"])
        return lambda waves: _store_long(waves, register, shift(first(waves), amount(waves).astype(np.uint64)))
    second = long_source(instruction, fields["ssrc1"])
    if name == "s_cselect_b64":
        return lambda waves: waves.set_long(register, np.where(waves.scc, first(waves), second(waves)))
    function = LONG_BINARY[name]
    return lambda waves: _store_long(waves, register, function(first(waves), second(waves)))


def _store_long(waves: Waves, register: int, value: Longs) -> None:
    waves.set_long(register, value)
    waves.set_scc(value != 0)


def _save(register: int, source: Callable[[Waves], Longs], function: Callable[[Longs, Longs], Longs]) -> Run:
    def run(waves: Waves) -> None:
        before = waves.long(EXEC)
        changed = function(source(waves), before)
        waves.set_long(register, before)
        _store_long(waves, EXEC, changed)

    return run
