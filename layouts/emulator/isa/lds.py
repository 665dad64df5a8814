"""Local data share instructions: reads, writes and lane permutation."""

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.emulator.errors import MemoryAccessError
from preshuffle.layouts.emulator.isa.instructions import Instruction
from preshuffle.layouts.emulator.isa.operands import (
    VectorSource,
    unmodelled,
    vector_register,
    vector_source,
)
from preshuffle.layouts.emulator.isa.waves import LANES, Waves, Words

Run = Callable[[Waves], None]
Addresses = NDArray[np.int64]
ONE = re.compile(r"ds_(read|write)_b(32|64|96|128)")
TWO = re.compile(r"ds_(read|write)2(st64)?_b(32|64)")
NARROW_WRITES = {"ds_write_b8": (1, 0), "ds_write_b16": (2, 0), "ds_write_b16_d16_hi": (2, 16)}
"""Bytes that are written, and the first bit of the register that they are taken from."""


def compile_lds(instruction: Instruction) -> Run:
    """Return the function that runs an instruction of local memory.

    Raises:
        UnmodelledInstructionError: it is none that the emulator knows.
    """
    fields, name = instruction.fields, instruction.name
    offset = fields["offset0"] | fields["offset1"] << 8
    if fields["gds"]:
        raise unmodelled(instruction, "global data share")
    if one := ONE.fullmatch(name):
        words = int(one[2]) // 32
        return _read(instruction, [(offset, words)]) if one[1] == "read" else _write(instruction, [(offset, words)])
    if two := TWO.fullmatch(name):
        words = int(two[3]) // 32
        unit = 4 * words * (64 if two[2] else 1)
        parts = [(fields["offset0"] * unit, words), (fields["offset1"] * unit, words)]
        return _read(instruction, parts) if two[1] == "read" else _write(instruction, parts)
    if name in NARROW_WRITES:
        return _write_narrow(instruction, offset, *NARROW_WRITES[name])
    if name == "ds_bpermute_b32":
        return _permute(instruction, offset)
    raise unmodelled(instruction)


def _accumulators(instruction: Instruction) -> int:
    return 256 if instruction.fields["acc"] else 0


def _address(instruction: Instruction) -> VectorSource:
    return vector_source(instruction, instruction.fields["addr"])


def _read(instruction: Instruction, parts: list[tuple[int, int]]) -> Run:
    address = _address(instruction)
    register = vector_register(instruction, instruction.fields["vdst"]) + _accumulators(instruction)

    def run(waves: Waves) -> None:
        base = address(waves).astype(np.int64)
        results = [word for offset, words in parts for word in _load(waves, instruction, base + offset, words)]
        for index, word in enumerate(results):
            waves.set_vector(register + index, word)

    return run


def _load(waves: Waves, instruction: Instruction, where: Addresses, words: int) -> list[Words]:
    """Read consecutive words at each lane's address; lanes that are off read the block's first bytes."""
    where = _checked(waves, instruction, where, 4 * words) + waves.lds_start
    if (where & 3).any():
        raw = waves.lds[where[..., None] + np.arange(4 * words)]
        return list(np.moveaxis(np.ascontiguousarray(raw).view(np.uint32), -1, 0))
    memory, first = waves.lds.view(np.uint32), where >> 2
    return [memory[first + index] for index in range(words)]


def _checked(waves: Waves, instruction: Instruction, where: Addresses, size: int) -> Addresses:
    where = np.broadcast_to(where, (waves.count, LANES))
    if waves.lanes is not None:
        where = np.where(waves.lanes, where, 0)
    if int(where.max()) + size > waves.lds_bytes or int(where.min()) < 0:
        raise MemoryAccessError(
            f"{instruction} reaches local memory at {int(where.max()):#x}; the block has {waves.lds_bytes:#x} bytes"
        )
    return where


def _write(instruction: Instruction, parts: list[tuple[int, int]]) -> Run:
    address, fields = _address(instruction), instruction.fields
    data = [fields["data0"], fields["data1"]]
    sources = [
        [vector_source(instruction, data[part] + _accumulators(instruction), word) for word in range(words)]
        for part, (_, words) in enumerate(parts)
    ]

    def run(waves: Waves) -> None:
        base = address(waves).astype(np.int64)
        for (offset, words), part in zip(parts, sources, strict=True):
            where = _checked(waves, instruction, base + offset, 4 * words) + waves.lds_start
            _store_words(waves, where, [np.broadcast_to(source(waves), (waves.count, LANES)) for source in part])

    return run


def _store_words(waves: Waves, where: Addresses, words: list[Words]) -> None:
    active = waves.active()
    chosen = where.reshape(-1) if active is None else where[active]
    values = [word.reshape(-1) if active is None else word[active] for word in words]
    if (chosen & 3).any():
        raw = np.stack(values, -1).view(np.uint8)
        waves.lds[chosen[:, None] + np.arange(raw.shape[1])] = raw
        return
    memory, first = waves.lds.view(np.uint32), chosen >> 2
    for index, value in enumerate(values):
        memory[first + index] = value


def _write_narrow(instruction: Instruction, offset: int, size: int, first_bit: int) -> Run:
    address = _address(instruction)
    source = vector_source(instruction, instruction.fields["data0"] + _accumulators(instruction))

    def run(waves: Waves) -> None:
        where = _checked(waves, instruction, address(waves).astype(np.int64) + offset, size) + waves.lds_start
        words = np.broadcast_to(source(waves) >> np.uint32(first_bit), where.shape)
        active = waves.active()
        chosen = where.reshape(-1) if active is None else where[active]
        values = np.ascontiguousarray(words.reshape(-1) if active is None else words[active])
        waves.lds[chosen[:, None] + np.arange(size)] = values[:, None].view(np.uint8)[:, :size]

    return run


def _permute(instruction: Instruction, offset: int) -> Run:
    """Take each lane's word from the lane that its address names; lanes that are off give 0."""
    address, source = _address(instruction), vector_source(instruction, instruction.fields["data0"])
    register = vector_register(instruction, instruction.fields["vdst"])

    def run(waves: Waves) -> None:
        lane = (address(waves).astype(np.int64) + offset) // 4 % LANES
        words = source(waves) if waves.lanes is None else np.where(waves.lanes, source(waves), np.uint32(0))
        shape = (waves.count, LANES)
        taken = np.take_along_axis(np.broadcast_to(words, shape), np.broadcast_to(lane, shape), 1)
        waves.set_vector(register, taken)

    return run
