"""Every arithmetic instruction against AMD's pseudocode, on random and on special inputs."""

from __future__ import annotations

import math
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tinygrad", reason="tinygrad is not installed: pip install '.[proofs]'")

from numpy.typing import NDArray

from preshuffle.layouts.emulator.isa import scalar, vector, vector_functions
from preshuffle.layouts.emulator.isa.instructions import Instruction
from preshuffle.layouts.emulator.isa.scalar import compile_scalar
from preshuffle.layouts.emulator.isa.vector import compile_vector
from preshuffle.layouts.emulator.isa.waves import EXEC, LANES, VCC, LaunchShape, Waves
from preshuffle.layouts.emulator.memory import GlobalMemory
from support.pseudocode.interpreter import run
from support.pseudocode.values import Number, bits_of, from_bits

PCODE: dict[Any, str] = import_module("tinygrad.runtime.autogen.amd.cdna.str_pcode").PCODE

WITHOUT_PSEUDOCODE = {"v_accvgpr_read", "v_accvgpr_write", "v_accvgpr_mov_b32"}
"""Moves between registers and accumulation registers, which AMD's document does not spell out."""

LANE_EXCHANGE = {name for name in vector.SPECIAL if "lane" in name}
SPECIAL_FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -3.5, math.inf, -math.inf, math.nan, 1e38, -1e-40, 65504.0, 7.5]
SMALL_FLOATS = {"v_exp_f32", "v_rndne_f32", "v_ldexp_f32", "v_cvt_i32_f32", "v_cvt_u32_f32", "v_floor_f32"}
APPROXIMATE = {"v_exp_f32", "v_log_f32", "v_sqrt_f32", "v_rcp_f32", "v_rcp_iflag_f32", "v_fma_f32", "v_fmac_f32"}
CVT_OFF_TABLE = [Number((code - 16 if code > 7 else code) / 16, "f", 32) for code in range(16)]

COMPARED = [f"v_cmp_{operation}_{kind}" for kind in ("u32", "i32", "f32") for operation in vector_functions.COMPARISONS]
VECTOR = sorted(
    {*vector_functions.UNARY, *vector_functions.BINARY, *vector_functions.TERNARY, *vector.SPECIAL}
    - WITHOUT_PSEUDOCODE
    - LANE_EXCHANGE
    - {"v_cvt_pk_fp8_f32"}
)
SCALAR_COMPARED = [f"s_cmp{k}_{op}_{kind}" for k in ("", "k") for op in scalar.COMPARISONS for kind in ("i32", "u32")]
SCALAR = sorted(
    {*scalar.BINARY, *scalar.UNARY, *scalar.LONG_BINARY, *scalar.LONG_SHIFTS, *scalar.SAVING, *scalar.CONSTANT}
    | {"s_mov_b64", "s_not_b64", "s_cselect_b64"}
)


@cache
def pseudocode() -> dict[str, str]:
    found: dict[str, str] = {}
    for operation, code in PCODE.items():
        name = operation.name.lower().removesuffix("_e32").removesuffix("_e64")
        found.setdefault(name, code)
    return found


def waves_of(count: int) -> Waves:
    shape = LaunchShape([(0, 0, 0)], count, 1024)
    return Waves("gfx950", shape, GlobalMemory())


def environment_of(lane: int = 0, **values: Any) -> dict[str, Any]:
    constants = {"ROUND_NEAREST_EVEN": Number(0), "ROUND_TOWARD_ZERO": Number(1), "INF": Number(math.inf, "f", 64)}
    return {
        **constants,
        "ROUND_MODE": constants["ROUND_NEAREST_EVEN"],
        "WAVE_MODE": {"IEEE": Number(0)},
        "CVT_OFF_TABLE": CVT_OFF_TABLE,
        "laneId": Number(lane),
        "D0": Number(0, "b", 64),
        **values,
    }


def random_words(name: str, generator: np.random.Generator, count: int) -> NDArray[np.uint32]:
    if "f32" in name or "f16_f32" in name or name in vector.PACKED:
        if name in SMALL_FLOATS:
            return (generator.standard_normal(count) * 20).astype(np.float32).view(np.uint32)
        values = generator.standard_normal(count) * 10.0 ** generator.integers(-6, 7, count)
        words = values.astype(np.float32).view(np.uint32)
        places = generator.permutation(count)[: len(SPECIAL_FLOATS)]
        words[places] = np.array(SPECIAL_FLOATS, np.float32).view(np.uint32)[: len(places)]
        return words
    words = generator.integers(0, 2**32, count, dtype=np.uint64).astype(np.uint32)
    words[: count // 4] &= 0x1F
    return words


def inputs_of(name: str, lanes: int) -> list[NDArray[np.uint32]]:
    generator = np.random.default_rng(sum(name.encode()))
    rows = [random_words(name, generator, lanes) for _ in range(7)]
    if name == "v_ldexp_f32":
        rows[1] = generator.integers(-20, 20, lanes).astype(np.int32).view(np.uint32)
    if name.startswith("v_cvt_scalef32"):
        scale = (2.0 ** generator.integers(-6, 6, lanes)).astype(np.float32).view(np.uint32)
        finite = (generator.standard_normal((2, lanes)) * 4).astype(np.float32).view(np.uint32)
        return [finite[0], finite[1], scale, rows[3]] if name.endswith("fp4_f32") else [rows[4], scale, scale, rows[3]]
    return rows


def vector_instruction(name: str, **fields: int) -> Instruction:
    packed = name in vector.PACKED
    standard = {"src0": 256 + 2, "src1": 256 + 4, "src2": 256 + 6, "vdst": 256 + 8, "neg": 0, "abs": 0, "clmp": 0}
    if packed:
        standard |= {"opsel": 0, "opsel_hi": 3, "opsel_hi2": 1, "neg_hi": 0}
    else:
        standard |= {"omod": 0, "opsel": 0}
    return Instruction(0, 8, name, "VOP3P" if packed else "VOP3", "", standard | fields)


def same(name: str, found: int, wanted: Number) -> bool:
    """Return whether two results are equal; any NaN equals any other."""
    expected = bits_of(wanted) & 0xFFFFFFFF
    if name in ("v_cvt_f16_f32", "v_cvt_pkrtz_f16_f32"):
        return all(same_float(name, found >> at & 0xFFFF, expected >> at & 0xFFFF, 16) for at in (0, 16))
    whole = "cvt" in name and not name.startswith(("v_cvt_f32", "v_cvt_scalef32_pk_f32"))
    if whole or "f32" not in name:
        return found == expected
    return same_float(name, found, expected, 32)


def same_float(name: str, found: int, wanted: int, width: int) -> bool:
    first, second = (float(from_bits(bits, "f", width).value) for bits in (found, wanted))
    if math.isnan(first) or math.isnan(second):
        return math.isnan(first) and math.isnan(second)
    return first == second or (name in APPROXIMATE and abs(first - second) <= 3e-7 * abs(second) + 1e-44)


@pytest.mark.parametrize("name", VECTOR)
def test_a_vector_instruction(name: str) -> None:
    waves = waves_of(1)
    for register, row in zip((2, 4, 6, 8, 3, 5, 7), inputs_of(name, LANES), strict=False):
        waves.vectors[register, 0] = row
    before = waves.vectors[:, 0].copy()
    condition = np.random.default_rng(5).integers(0, 2, LANES).astype(bool)
    waves.scalars[10:12, 0] = np.packbits(condition, bitorder="little").view(np.uint32)
    fields = {"src2": 10} if name == "v_cndmask_b32" else {}
    with np.errstate(all="ignore"):
        compile_vector(vector_instruction(name, **fields))(waves)
    pairs = name in vector.PACKED
    for lane in range(LANES):
        sources = {
            operand: Number(
                int(before[register, lane]) | (int(before[register + 1, lane]) << 32 if pairs else 0), "b", 64
            )
            for operand, register in (("S0", 2), ("S1", 4), ("S2", 6), ("D0", 8))
        }
        registers = [[sources["S0"], Number(int(before[8, lane]), "b", 32)] for _ in range(LANES)]
        mask = Number(sum(int(bit) << at for at, bit in enumerate(condition)), "b", 64)
        state = environment_of(
            lane, **sources, VCC=mask, OPSEL=Number(0, "b", 4), VGPR=registers, SRC0=Number(0), VDST=Number(1)
        )
        wanted = run(pseudocode()[name], state, pseudocode())["D0"]
        if "VDST" in pseudocode()[name]:
            wanted = registers[lane][1]
        assert same(name, int(waves.vectors[8, 0, lane]), wanted), before[2:9, lane]
        if pairs or name.endswith("f32_fp4"):
            assert same(name, int(waves.vectors[9, 0, lane]), from_bits(bits_of(wanted) >> 32, "b", 32))


@pytest.mark.parametrize("name", [name for name in COMPARED if name in pseudocode()])
def test_a_vector_comparison(name: str) -> None:
    first, second, *_ = inputs_of(name, LANES)
    second[::3] = first[::3]
    waves = waves_of(1)
    waves.vectors[2, 0], waves.vectors[4, 0] = first, second
    compile_vector(vector_instruction(name, vdst=VCC))(waves)
    found = int(waves.long(VCC)[0])
    for lane in range(LANES):
        numbers = {"S0": Number(int(first[lane]), "b", 64), "S1": Number(int(second[lane]), "b", 64)}
        wanted = run(pseudocode()[name], environment_of(lane, **numbers), pseudocode())
        assert found >> lane & 1 == bits_of(wanted["D0"]) >> lane & 1, lane


@pytest.mark.parametrize("name", SCALAR + SCALAR_COMPARED)
def test_a_scalar_instruction(name: str) -> None:
    count = 64
    words = inputs_of(name, count)[:6]
    words[1][::5] = words[0][::5]
    if name.startswith("s_bfe"):
        words[1] = words[1] & np.uint32(0x1F) | words[2] % np.uint32(32) << np.uint32(16)
    scc = np.random.default_rng(3).integers(0, 2, count).astype(bool)
    constant = name.startswith("s_cmpk") or name in scalar.CONSTANT
    samples = range(8) if constant else range(1)
    for sample in samples:
        waves = waves_of(count)
        for register, row in enumerate((words[0], words[3], words[1], words[4], words[2], words[5])):
            waves.scalars[20 + register] = row
        waves.scalars[EXEC], waves.scalars[EXEC + 1] = words[5], words[4]
        waves.scc[:] = scc
        immediate = int(words[1][sample * 7]) & 0xFFFF
        fields = {"sdst": 24, "ssrc0": 20, "ssrc1": 22, "simm16": immediate}
        if name.startswith("s_cmpk"):
            fields["sdst"] = 20
        compile_scalar(Instruction(0, 4, name, "SOPK" if constant else "SOP2", "", fields))(waves)
        for wave in range(count):
            check_scalar(name, waves, wave, words, bool(scc[wave]), immediate if constant else None)


def check_scalar(name: str, waves: Waves, wave: int, words: Any, scc: bool, immediate: int | None) -> None:
    pairs = [int(words[low][wave]) | int(words[high][wave]) << 32 for low, high in ((0, 3), (1, 4), (2, 5))]
    first, second, old = (Number(bits, "b", 64) for bits in pairs)
    if immediate is not None and name.startswith("s_cmpk"):
        second = Number(immediate, "b", 64)
    elif immediate is not None:
        first = Number(immediate, "b", 64)
    mask = Number(int(words[5][wave]) | int(words[4][wave]) << 32, "u", 64)
    state = environment_of(S0=first, S1=second, D0=old, SCC=Number(int(scc), "u", 1), EXEC=mask)
    wanted = run(pseudocode()[name], state, pseudocode())
    assert int(waves.scc[wave]) == int(bool(wanted["SCC"].value)), name
    if name.startswith("s_cmp"):
        return
    width = 64 if name.endswith("64") else 32
    found = int(waves.long(24)[wave]) if width == 64 else int(waves.scalars[24, wave])
    assert found == bits_of(wanted["D0"]) & (1 << width) - 1, (name, first, second)
    assert int(waves.long(EXEC)[wave]) == bits_of(wanted["EXEC"])


@pytest.mark.parametrize("name", sorted(LANE_EXCHANGE))
def test_an_exchange_of_lanes(name: str) -> None:
    generator = np.random.default_rng(8)
    source, target = generator.integers(0, 2**32, (2, LANES), dtype=np.uint64).astype(np.uint32)
    waves = waves_of(1)
    mask = 0x00FF_F0F0_1234_5670
    waves.scalars[20], waves.scalars[21] = 37, int(source[5])
    to_scalar = name.startswith("v_read")
    if name == "v_readfirstlane_b32":
        waves.set_long(EXEC, np.array([mask], np.uint64))
    waves.vectors[2, 0], waves.vectors[8, 0] = source, target
    fields = {"src1": 20} | ({"src0": 21} if name == "v_writelane_b32" else {})
    fields |= {"vdst": 256 + 30} if to_scalar else {}
    compile_vector(vector_instruction(name, **fields))(waves)
    lanes = [[Number(int(source[lane]), "b", 32), Number(int(target[lane]), "b", 32)] for lane in range(LANES)]
    state = environment_of(
        VGPR=lanes,
        SRC0=Number(0),
        VDST=Number(1),
        S0=Number(int(source[5]), "b", 64),
        S1=Number(37, "b", 64),
        EXEC=Number(mask, "u", 64),
    )
    wanted = run(pseudocode()[name], state, pseudocode())
    if to_scalar:
        assert int(waves.scalars[30, 0]) == bits_of(wanted["D0"]) & 0xFFFFFFFF
        return
    assert [int(word) for word in waves.vectors[8, 0]] == [bits_of(row[1]) for row in lanes]
    if "swap" in name:
        assert [int(word) for word in waves.vectors[2, 0]] == [bits_of(row[0]) for row in lanes]
