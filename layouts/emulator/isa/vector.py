"""Vector instructions: arithmetic, comparisons, packed pairs, conversions and lane exchange."""

from collections.abc import Callable

import numpy as np

from preshuffle.layouts.emulator.isa.instructions import Instruction
from preshuffle.layouts.emulator.isa.operands import (
    FIRST_VECTOR,
    VectorSource,
    floats,
    long_source,
    scalar_source,
    unmodelled,
    vector_register,
    vector_source,
    with_lanes_of,
    with_part,
    with_signs,
    words_of,
)
from preshuffle.layouts.emulator.isa.vector_functions import (
    BINARY,
    COMPARED_TYPES,
    COMPARISONS,
    FLOAT_SOURCES,
    TERNARY,
    UNARY,
    pack_halves,
)
from preshuffle.layouts.emulator.isa.vector_long import LONG
from preshuffle.layouts.emulator.isa.waves import LANES, VCC, Waves, Words, lane_mask
from preshuffle.layouts.emulator.number_formats import E2M1, FP8_OF_ARCH, Floats, float_to_bf16, float_to_code

Run = Callable[[Waves], None]
FUNCTIONS = {**UNARY, **BINARY, **TERNARY}
PACKED = {
    "v_pk_mul_f32": BINARY["v_mul_f32"],
    "v_pk_add_f32": BINARY["v_add_f32"],
    "v_pk_fma_f32": TERNARY["v_fma_f32"],
}


def compile_vector(instruction: Instruction) -> Run:
    """Return the function that runs a vector arithmetic instruction.

    Raises:
        UnmodelledInstructionError: it is none that the emulator knows, or has a modifier that it does not know.
    """
    name = instruction.name
    if name in FUNCTIONS:
        return _plain(instruction)
    if name.startswith("v_cmp_"):
        return _compare(instruction)
    special = SPECIAL.get(name) or LONG.get(name)
    if special is None:
        raise unmodelled(instruction)
    return special(instruction)


def sources_of(instruction: Instruction, count: int, signs: bool) -> list[VectorSource]:
    """Return the sources of an instruction, modified as it says.

    Args:
        instruction: any vector arithmetic instruction.
        count: of its sources.
        signs: whether they may be negated or made absolute.
    """
    fields, sources = instruction.fields, []
    for index, field in enumerate(_source_fields(instruction)[:count]):
        source = vector_source(instruction, fields[field])
        if instruction.variant == "DPP16" and index == 0:
            source = with_lanes_of(instruction, source)
        if instruction.variant == "SDWA":
            source = with_part(instruction, source, fields[f"src{index}_sel"], bool(fields[f"src{index}_sext"]))
        absolute, negative = _signs(instruction, index)
        if (absolute or negative) and not signs:
            raise unmodelled(instruction, "a sign modifier")
        sources.append(with_signs(source, absolute, negative))
    _check_modifiers(instruction)
    return sources


def _source_fields(instruction: Instruction) -> tuple[str, ...]:
    first = "vsrc0" if instruction.variant in ("DPP16", "SDWA") else "src0"
    return (first, "vsrc1") if instruction.encoding in ("VOP2", "VOPC") else (first, "src1", "src2")


def _signs(instruction: Instruction, index: int) -> tuple[bool, bool]:
    fields = instruction.fields
    if instruction.encoding in ("VOP3", "VOP3SD"):
        return bool(fields.get("abs", 0) >> index & 1), bool(fields["neg"] >> index & 1)
    return bool(fields.get(f"src{index}_abs", 0)), bool(fields.get(f"src{index}_neg", 0))


def _check_modifiers(instruction: Instruction) -> None:
    fields = instruction.fields
    for modifier in ("omod", "clmp"):
        if fields.get(modifier, 0):
            raise unmodelled(instruction, modifier)
    if fields.get("s1", 0) and instruction.variant == "SDWA":
        raise unmodelled(instruction, "a scalar second source of SDWA")


def _destination(instruction: Instruction) -> int:
    return vector_register(instruction, instruction.fields["vdst"])


def _plain(instruction: Instruction) -> Run:
    name = instruction.name
    function = FUNCTIONS[name]
    count = 1 if name in UNARY else 2 if name in BINARY else 3
    if instruction.encoding == "VOP3P":  # moves from and to accumulation registers
        return _move_accumulator(instruction)
    if instruction.fields.get("opsel", 0):
        raise unmodelled(instruction, "op_sel")
    sources = sources_of(instruction, count, name in FLOAT_SOURCES)
    register = _destination(instruction)
    if instruction.variant == "SDWA" and instruction.fields["dst_sel"] != 6:
        return _into_part(instruction, register, lambda waves: function(*(source(waves) for source in sources)))
    if count == 1:
        (only,) = sources
        return lambda waves: waves.set_vector(register, function(only(waves)))
    if count == 2:
        first, second = sources
        return lambda waves: waves.set_vector(register, function(first(waves), second(waves)))
    return lambda waves: waves.set_vector(register, function(*(source(waves) for source in sources)))


def _into_part(instruction: Instruction, register: int, compute: Callable[[Waves], Words]) -> Run:
    """SDWA: write a byte or a half, keep the rest (`dst_unused` 2)."""
    select = instruction.fields["dst_sel"]
    if instruction.fields["dst_unused"] != 2 or select > 5:
        raise unmodelled(instruction, "SDWA's destination")
    bits, shift = (8, 8 * select) if select < 4 else (16, 16 * (select - 4))
    keep, place = np.uint32((1 << bits) - 1), np.uint32(shift)
    others = np.uint32(~((1 << bits) - 1 << shift) & 0xFFFFFFFF)
    return lambda waves: waves.set_vector(register, waves.vectors[register] & others | (compute(waves) & keep) << place)


def _move_accumulator(instruction: Instruction) -> Run:
    target, operand = instruction.fields["vdst"] - FIRST_VECTOR, instruction.fields["src0"]
    if instruction.name == "v_accvgpr_write":
        return _move(256 + target, vector_source(instruction, operand))
    if instruction.name == "v_accvgpr_read":
        return _move(target, vector_source(instruction, operand, 256))
    raise unmodelled(instruction)


def _move(register: int, source: VectorSource) -> Run:
    return lambda waves: waves.set_vector(register, source(waves))


def _compare(instruction: Instruction) -> Run:
    _, _, operation, kind = (*instruction.name.split("_"), "", "")[:4]
    if operation not in COMPARISONS or kind not in COMPARED_TYPES:
        raise unmodelled(instruction)
    function, compared = COMPARISONS[operation], COMPARED_TYPES[kind]
    first, second = sources_of(instruction, 2, kind == "f32")
    fields = instruction.fields
    register = fields["vdst"] if instruction.encoding == "VOP3" else fields["sdst"] if fields.get("sd", 0) else VCC

    def run(waves: Waves) -> None:
        found = function(first(waves).view(compared), second(waves).view(compared))
        waves.set_lane_bits(register, np.broadcast_to(found, (waves.count, LANES)))

    return run


def _select(instruction: Instruction) -> Run:
    first, second = sources_of(instruction, 2, signs=True)
    in_vop3 = instruction.encoding == "VOP3"
    condition = long_source(instruction, instruction.fields["src2"] if in_vop3 else VCC)
    register = _destination(instruction)
    return lambda waves: waves.set_vector(register, np.where(lane_mask(condition(waves)), second(waves), first(waves)))


def _accumulate(instruction: Instruction) -> Run:
    first, second = sources_of(instruction, 2, signs=True)
    register, fused = _destination(instruction), TERNARY["v_fma_f32"]
    return lambda waves: waves.set_vector(register, fused(first(waves), second(waves), waves.vectors[register]))


def _packed(instruction: Instruction) -> Run:
    name, fields = instruction.name, instruction.fields
    if fields["neg"] or fields["neg_hi"] or fields["clmp"]:
        raise unmodelled(instruction, "a modifier of packed floats")
    function = PACKED[name]
    count = 3 if name == "v_pk_fma_f32" else 2
    high_of = fields["opsel_hi"] | fields["opsel_hi2"] << 2
    low = [_half_of_pair(instruction, index, fields["opsel"] >> index & 1) for index in range(count)]
    high = [_half_of_pair(instruction, index, high_of >> index & 1) for index in range(count)]
    register = _destination(instruction)

    def run(waves: Waves) -> None:
        first = function(*(source(waves) for source in low))
        second = function(*(source(waves) for source in high))
        waves.set_vector(register, first)
        waves.set_vector(register + 1, second)

    return run


def _half_of_pair(instruction: Instruction, index: int, word: int) -> VectorSource:
    operand = instruction.fields[f"src{index}"]
    return vector_source(instruction, operand, 0 if 128 <= operand < FIRST_VECTOR else word)


def _to_fp8(instruction: Instruction) -> Run:
    first, second = sources_of(instruction, 2, signs=True)
    register, high = _destination(instruction), bool(instruction.fields["opsel"] & 8)
    keep, shift = (np.uint32(0xFFFF), np.uint32(16)) if high else (np.uint32(0xFFFF0000), np.uint32(0))

    def run(waves: Waves) -> None:
        table = FP8_OF_ARCH[waves.arch]
        pair = _code_pair(first(waves), second(waves), table, 8)
        waves.set_vector(register, waves.vectors[register] & keep | pair << shift)

    return run


def _code_pair(first: Words, second: Words, table: Floats, bits: int, scale: Floats | float = 1.0) -> Words:
    low, high = (float_to_code(floats(word).astype(np.float64) / scale, table) for word in (first, second))
    return low.astype(np.uint32) | high.astype(np.uint32) << np.uint32(bits)


def _power_of_two(words: Words) -> Floats:
    """Scale of the ``scalef32`` instructions: a float's exponent alone counts."""
    return np.exp2((words >> np.uint32(23) & np.uint32(255)).astype(np.float64) - 127)


def _to_fp4(instruction: Instruction) -> Run:
    first, second, scale = sources_of(instruction, 3, signs=True)
    register, place = _destination(instruction), np.uint32(8 * (instruction.fields["opsel"] >> 2 & 3))
    others = np.uint32(~(255 << int(place)) & 0xFFFFFFFF)

    def run(waves: Waves) -> None:
        pair = _code_pair(first(waves), second(waves), E2M1, 4, _power_of_two(scale(waves)))
        waves.set_vector(register, waves.vectors[register] & others | pair << place)

    return run


def _from_fp4(instruction: Instruction) -> Run:
    source, scale = sources_of(instruction, 2, signs=False)
    register, place = _destination(instruction), np.uint32(8 * (instruction.fields["opsel"] & 3))
    as_bf16 = instruction.name == "v_cvt_scalef32_pk_bf16_fp4"

    def run(waves: Waves) -> None:
        byte, factor = source(waves) >> place & np.uint32(255), _power_of_two(scale(waves))
        low, high = ((E2M1[code] * factor).astype(np.float32) for code in (byte & np.uint32(15), byte >> np.uint32(4)))
        if as_bf16:
            waves.set_vector(register, pack_halves(float_to_bf16(low), float_to_bf16(high)))
        else:
            waves.set_vector(register, words_of(low))
            waves.set_vector(register + 1, words_of(high))

    return run


def _read_lane(instruction: Instruction) -> Run:
    source, lane = (
        vector_source(instruction, instruction.fields["src0"]),
        scalar_source(instruction, instruction.fields["src1"]),
    )
    register = instruction.fields["vdst"] & 255

    def run(waves: Waves) -> None:
        chosen = np.broadcast_to(lane(waves) & np.uint32(63), (waves.count,))
        waves.set_scalar_from_vector(register, source(waves)[np.arange(waves.count), chosen])

    return run


def _read_first_lane(instruction: Instruction) -> Run:
    source, register = vector_source(instruction, instruction.fields["src0"]), instruction.fields["vdst"] & 255

    def run(waves: Waves) -> None:
        words = np.broadcast_to(source(waves), (waves.count, LANES))
        first = np.zeros(waves.count, np.intp) if waves.lanes is None else waves.lanes.argmax(1)
        waves.set_scalar_from_vector(register, words[np.arange(waves.count), first])

    return run


def _write_lane(instruction: Instruction) -> Run:
    fields, register = instruction.fields, _destination(instruction)
    source, lane = (scalar_source(instruction, fields[name]) for name in ("src0", "src1"))

    def run(waves: Waves) -> None:
        rows = np.arange(waves.count) if waves.vector_waves is None else np.flatnonzero(waves.vector_waves)
        columns = np.broadcast_to(lane(waves) & np.uint32(63), (waves.count,))[rows]
        waves.vectors[register][rows, columns] = np.broadcast_to(source(waves), (waves.count,))[rows]

    return run


def _swap_rows(instruction: Instruction) -> Run:
    """Exchange the odd blocks of lanes of one register with the even blocks of the other."""
    size = 32 if "32_swap" in instruction.name else 16
    first, second = _destination(instruction), vector_register(instruction, instruction.fields["src0"])
    odd = np.arange(LANES) // size % 2 == 1

    def run(waves: Waves) -> None:
        before, other = waves.vectors[first].copy(), waves.vectors[second].copy()
        waves.set_vector(first, np.where(odd, np.roll(other, size, 1), before))
        waves.set_vector(second, np.where(odd, other, np.roll(before, -size, 1)))

    return run


SPECIAL: dict[str, Callable[[Instruction], Run]] = {
    "v_cndmask_b32": _select,
    "v_fmac_f32": _accumulate,
    **dict.fromkeys(PACKED, _packed),
    "v_cvt_pk_fp8_f32": _to_fp8,
    "v_cvt_scalef32_pk_fp4_f32": _to_fp4,
    "v_cvt_scalef32_pk_bf16_fp4": _from_fp4,
    "v_cvt_scalef32_pk_f32_fp4": _from_fp4,
    "v_readlane_b32": _read_lane,
    "v_readfirstlane_b32": _read_first_lane,
    "v_writelane_b32": _write_lane,
    "v_permlane32_swap_b32": _swap_rows,
    "v_permlane16_swap_b32": _swap_rows,
}
