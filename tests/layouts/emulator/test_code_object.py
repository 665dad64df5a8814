"""Code objects: what is no whole one of a known GPU is one clear error."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from preshuffle.layouts.emulator import CodeObject, CodeObjectError, GlobalMemory, Program, UnmodelledInstructionError
from preshuffle.layouts.emulator import launch as run_kernel
from support.kernels import kernel_path

STEM = "fmoe_stage1_bf16_pertokenFp8_g1u1_16x128_4tg_pf2"


@pytest.fixture(scope="module")
def shipped() -> bytes:
    return kernel_path(STEM, "gfx942").read_bytes()


def test_a_code_object_says_what_it_is(shipped: bytes) -> None:
    code = CodeObject.parse(shipped, "k.co")
    assert (code.arch, len(code.sha256)) == ("gfx942", 64)
    assert STEM in code.name
    assert code.descriptor.block_ids == (True, True, True)


@pytest.mark.parametrize("kept", [0, 3, 20, 63, 200, 5000, -1, -2000])
def test_a_truncated_file_is_one_clear_error(shipped: bytes, kept: int) -> None:
    with pytest.raises(CodeObjectError, match=r"k\.co"):
        CodeObject.parse(shipped[:kept], "k.co")


def test_a_kernel_is_chosen_by_texts_in_its_name(shipped: bytes) -> None:
    assert STEM in CodeObject.parse(shipped, "k.co", ("stage1", "16x128")).name
    with pytest.raises(CodeObjectError, match="0 kernel descriptors, expected 1"):
        CodeObject.parse(shipped, "k.co", ("stage1", "no_such"))


def test_a_file_of_another_gpu_is_an_error(shipped: bytes) -> None:
    flags = struct.unpack_from("<I", shipped, 48)[0]
    other = shipped[:48] + struct.pack("<I", flags & ~0xFF | 0x41) + shipped[52:]  # gfx1100
    with pytest.raises(CodeObjectError, match="machine flag 0x41; the emulator knows gfx942, gfx950"):
        CodeObject.parse(other, "k.co")


def test_an_elf_file_of_a_cpu_is_an_error(shipped: bytes) -> None:
    other = shipped[:18] + struct.pack("<H", 62) + shipped[20:]
    with pytest.raises(CodeObjectError, match="of machine 62, not of an AMD GPU"):
        CodeObject.parse(other, "k.co")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CodeObjectError, match="No such file"):
        CodeObject.read(tmp_path / "none.co")


def with_first_instruction(shipped: bytes, word: int) -> CodeObject:
    code = CodeObject.parse(shipped, "k.co")
    at = code.descriptor.entry - code.text_address
    changed = code.text[:at] + struct.pack("<I", word) + code.text[at + 4 :]
    start = shipped.index(code.text)
    return CodeObject.parse(shipped[:start] + changed + shipped[start + len(code.text) :], "k.co")


def test_an_instruction_that_is_not_modelled_is_an_error_with_its_name(shipped: bytes) -> None:
    program = Program(with_first_instruction(shipped, 0xBF900001))  # s_sendmsg
    memory = GlobalMemory()
    arguments = memory.reserve("arguments", 4096)
    with pytest.raises(UnmodelledInstructionError, match=r"s_sendmsg .* is not modelled"):
        run_kernel(program, memory, arguments, [(0, 0, 0)])
    assert program.not_modelled() == {"s_sendmsg": 1}


def test_every_instruction_of_a_shipped_kernel_is_modelled(shipped: bytes) -> None:
    assert not Program(CodeObject.parse(shipped, "k.co")).not_modelled()
