"""Operands, masks and memory instructions on small hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tinygrad", reason="tinygrad is not installed: pip install '.[proofs]'")

from preshuffle.layouts.emulator import GlobalMemory, MemoryAccessError, UnmodelledInstructionError
from preshuffle.layouts.emulator.isa.global_access import compile_global
from preshuffle.layouts.emulator.isa.instructions import Instruction
from preshuffle.layouts.emulator.isa.lds import compile_lds
from preshuffle.layouts.emulator.isa.scalar import compile_scalar
from preshuffle.layouts.emulator.isa.vector import compile_vector
from preshuffle.layouts.emulator.isa.waves import EXEC, LANES, LaunchShape, Waves

LANE = np.arange(LANES, dtype=np.uint32)
MODIFIERS = {"omod": 0, "neg": 0, "abs": 0, "clmp": 0, "opsel": 0}


def waves_of(count: int = 1, memory: GlobalMemory | None = None) -> Waves:
    return Waves("gfx942", LaunchShape([(0, 0, 0)], count, 1024), memory or GlobalMemory())


def instruction(name: str, encoding: str, variant: str = "", /, **fields: int) -> Instruction:
    return Instruction(0, 8, name, encoding, variant, fields)


def test_lanes_that_are_off_keep_their_registers() -> None:
    waves = waves_of()
    waves.set_long(EXEC, np.array([0b1010], np.uint64))
    compile_vector(instruction("v_mov_b32", "VOP1", src0=128 + 7, vdst=256 + 3))(waves)
    assert waves.vectors[3, 0, :6].tolist() == [0, 7, 0, 7, 0, 0]


def test_waves_that_skip_vector_instructions_keep_theirs() -> None:
    waves = waves_of(2)
    waves.scalars[5] = [0, 1]
    compile_scalar(instruction("s_setvskip", "SOPC", ssrc0=5, ssrc1=128))(waves)
    compile_vector(instruction("v_mov_b32", "VOP1", src0=128 + 7, vdst=256 + 3))(waves)
    assert waves.vectors[3, :, 0].tolist() == [7, 0]
    assert not waves.skips
    waves.run_only(np.array([False, True]))
    assert waves.skips


@pytest.mark.parametrize(
    ("operand", "bits"),
    [(128, 0), (192, 64), (193, 0xFFFFFFFF), (208, 0xFFFFFFF0), (242, 0x3F800000), (245, 0xC0000000), (255, 0xABCD)],
)
def test_constants(operand: int, bits: int) -> None:
    waves = waves_of()
    compile_vector(instruction("v_mov_b32", "VOP1", "LIT", src0=operand, vdst=256, literal=0xABCD))(waves)
    assert int(waves.vectors[0, 0, 0]) == bits


def test_signs_of_float_sources() -> None:
    waves = waves_of()
    waves.vectors[1, 0], waves.vectors[2, 0] = np.array([[2.0], [-3.0]], np.float32).view(np.uint32)
    fields = {**MODIFIERS, "abs": 0b10, "neg": 0b11}
    compile_vector(instruction("v_add_f32", "VOP3", src0=257, src1=258, src2=0, vdst=259, **fields))(waves)
    assert waves.vectors[3, 0].view(np.float32)[0] == -2 - 3


@pytest.mark.parametrize(
    ("control", "lanes"),
    [(0b00_01_10_11, [3, 2, 1, 0, 7]), (0x155, [5, 5, 5, 5, 5])],
)
def test_dpp_moves_lanes(control: int, lanes: list[int]) -> None:
    waves = waves_of()
    waves.vectors[1, 0] = LANE
    fields = {"vsrc0": 257, "src0": 250, "dpp": control, "row_mask": 15, "bank_mask": 15}
    compile_vector(instruction("v_mov_b32", "VOP1", "DPP16", vdst=258, **fields))(waves)
    assert waves.vectors[2, 0, :5].tolist() == lanes
    assert int(waves.vectors[2, 0, 16]) == (19 if control < 0x100 else 21)


def test_a_dpp_control_that_is_not_modelled_is_an_error() -> None:
    fields = {"vsrc0": 257, "dpp": 0x121, "row_mask": 15, "bank_mask": 15}
    with pytest.raises(UnmodelledInstructionError, match=r"v_mov_b32 .*DPP control 0x121 is not modelled"):
        compile_vector(instruction("v_mov_b32", "VOP1", "DPP16", vdst=258, **fields))


def test_sdwa_selects_bytes_and_keeps_the_rest() -> None:
    waves = waves_of()
    waves.vectors[1, 0], waves.vectors[2, 0] = 0x11F38844, 0xAAAABBBB
    fields = {"vsrc0": 257, "src0_sel": 2, "src0_sext": 1, "dst_sel": 5, "dst_unused": 2, "s1": 0}
    compile_vector(instruction("v_mov_b32", "VOP1", "SDWA", vdst=258, **fields))(waves)
    assert int(waves.vectors[2, 0, 0]) == 0xFFF3BBBB


def test_local_memory_returns_what_was_written() -> None:
    waves = waves_of(2)
    waves.vectors[1] = LANE * 8
    waves.vectors[2], waves.vectors[3] = LANE + 100, LANE + 200
    lds = {"gds": 0, "acc": 0, "offset0": 16, "offset1": 0, "addr": 257, "data0": 258, "data1": 0, "vdst": 260}
    compile_lds(instruction("ds_write_b64", "DS", **lds))(waves)
    compile_lds(instruction("ds_read_b64", "DS", **lds))(waves)
    assert waves.vectors[4, 1].tolist() == (LANE + 100).tolist()
    assert waves.vectors[5, 1].tolist() == (LANE + 200).tolist()
    with pytest.raises(MemoryAccessError, match="local memory at 0x908"):
        compile_lds(instruction("ds_read_b64", "DS", **{**lds, "offset1": 7}))(waves)


def test_buffer_loads_beyond_the_descriptor_give_zero_and_stores_nothing() -> None:
    memory = GlobalMemory()
    start = memory.add("data", np.arange(1, 65, dtype=np.uint32))
    waves = waves_of(1, memory)
    waves.scalars[8:12, 0] = [start & 0xFFFFFFFF, start >> 32, 4 * 10, 0]
    waves.vectors[1, 0] = LANE * 4
    buffer = {"vdata": 258, "vaddr": 257, "srsrc": 8, "soffset": 128 + 4, "offset": 8, "offen": 1, "idxen": 0}
    fields = {**buffer, "acc": 0, "sc0": 0, "lds": 0}
    compile_global(instruction("buffer_load_dword", "MUBUF", **fields))(waves)
    assert waves.vectors[2, 0, :8].tolist() == [4, 5, 6, 7, 8, 9, 10, 0]
    compile_global(instruction("buffer_store_dword", "MUBUF", **{**fields, "vdata": 257}))(waves)
    assert memory.bytes_of("data").view(np.uint32)[2:12].tolist() == [3, 0, 4, 8, 12, 16, 20, 24, 11, 12]


def test_atomics_of_several_lanes_at_one_word_add_up() -> None:
    memory = GlobalMemory()
    start = memory.add("sum", np.zeros(2, np.float32))
    waves = waves_of(1, memory)
    waves.scalars[8:10, 0] = [start & 0xFFFFFFFF, start >> 32]
    waves.vectors[1, 0] = LANE % 2 * 4
    waves.vectors[2, 0] = LANE.astype(np.float32).view(np.uint32)
    fields = {"addr": 257, "data": 258, "vdst": 0, "saddr": 8, "offset": 0, "acc": 0, "sve": 0, "sc0": 0}
    compile_global(instruction("global_atomic_add_f32", "GLOBAL", **fields))(waves)
    assert memory.bytes_of("sum").view(np.float32).tolist() == [sum(range(0, 64, 2)), sum(range(1, 64, 2))]
