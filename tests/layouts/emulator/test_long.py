"""64-bit vector instructions and the truth table against AMD's pseudocode, written out in Python's integers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tinygrad", reason="tinygrad is not installed: pip install '.[proofs]'")

from preshuffle.layouts.emulator import UnmodelledInstructionError
from preshuffle.layouts.emulator.isa.instructions import Instruction
from preshuffle.layouts.emulator.isa.vector import compile_vector
from preshuffle.layouts.emulator.isa.waves import LANES, VCC, LaunchShape, Waves
from preshuffle.layouts.emulator.memory import GlobalMemory

MASK = (1 << 32) - 1
SOURCES = {"src0": 256, "src1": 258, "src2": 260}


def run(name: str, words: list[np.ndarray], **fields: int) -> Waves:
    """Run one instruction on vector registers 0 to 5; its result is in 6 and 7."""
    waves = Waves("gfx950", LaunchShape([(0, 0, 0)], 1, 1024), GlobalMemory())
    for register, word in enumerate(words):
        waves.set_vector(register, word)
    encoding = "VOP3SD" if "sdst" in fields else "VOP3"
    compile_vector(Instruction(0, 8, name, encoding, "", {**SOURCES, "vdst": 262, **fields}))(waves)
    return waves


def random_words() -> list[np.ndarray]:
    generator = np.random.default_rng(5)
    words = [generator.integers(0, 1 << 32, (1, LANES), np.uint32) for _ in range(6)]
    words[0][0, :2], words[2][0, :2], words[4][0, :2], words[5][0, :2] = MASK, MASK, MASK, MASK
    return words


def long_at(waves: Waves, register: int, lane: int) -> int:
    return int(waves.vectors[register][0, lane]) | int(waves.vectors[register + 1][0, lane]) << 32


@pytest.mark.parametrize("table", [0x00, 0x6C, 0x96, 0xE8, 0xFF])
def test_bitop3_looks_three_bits_up_in_its_table(table: int) -> None:
    words = random_words()
    waves = run("v_bitop3_b32", words, neg=table & 7, abs=table >> 3 & 7, omod=table >> 6)
    for lane in (0, 7, 63):
        a, b, c = (int(words[register][0, lane]) for register in (0, 2, 4))
        rows = ((a >> bit & 1) << 2 | (b >> bit & 1) << 1 | (c >> bit & 1) for bit in range(32))
        assert int(waves.vectors[6][0, lane]) == sum((table >> row & 1) << bit for bit, row in enumerate(rows))


def test_a_64_bit_sum_takes_three_bits_of_the_shift() -> None:
    words = random_words()
    waves = run("v_lshl_add_u64", words)
    for lane in range(LANES):
        first, third = (int(words[r][0, lane]) | int(words[r + 1][0, lane]) << 32 for r in (0, 4))
        wanted = (first << (int(words[2][0, lane]) & 7)) + third
        assert long_at(waves, 6, lane) == wanted & (1 << 64) - 1


def test_a_64_bit_product_carries_into_its_mask() -> None:
    words = random_words()
    waves = run("v_mad_u64_u32", words, sdst=VCC)
    carry = int(waves.long(VCC)[0])
    for lane in range(LANES):
        third = int(words[4][0, lane]) | int(words[5][0, lane]) << 32
        wanted = int(words[0][0, lane]) * int(words[2][0, lane]) + third
        assert long_at(waves, 6, lane) == wanted & (1 << 64) - 1
        assert carry >> lane & 1 == wanted >> 64
    assert carry


def test_modifiers_of_64_bit_instructions_are_not_modelled() -> None:
    with pytest.raises(UnmodelledInstructionError, match="a modifier is not modelled"):
        run("v_lshl_add_u64", random_words(), neg=1)
