"""Global memory instructions: buffer, global and scalar loads, stores and atomics."""

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.emulator.atomics import add_to_memory
from preshuffle.layouts.emulator.isa.instructions import Instruction
from preshuffle.layouts.emulator.isa.operands import (
    long_source,
    scalar_source,
    unmodelled,
    vector_register,
    vector_source,
)
from preshuffle.layouts.emulator.isa.waves import LANES, M0, Mask, Waves, Words

Run = Callable[[Waves], None]
Addresses = NDArray[np.int64]
Locate = Callable[[Waves], tuple[Addresses, Mask | None]]
"""Address of each lane, shape (waves, 64), and which lanes access memory; None: all."""

NAMES = re.compile(r"(?:buffer|global)_(load|store)_(dword|dwordx2|dwordx3|dwordx4|ubyte|ushort|byte|short)")
SIZES = {"dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16, "ubyte": 1, "byte": 1, "ushort": 2, "short": 2}
ATOMICS = re.compile(r"(?:buffer|global)_atomic_(add_f32|pk_add_bf16|pk_add_f16)")
SCALAR_LOADS = {"s_load_dword": 1, "s_load_dwordx2": 2, "s_load_dwordx4": 4, "s_load_dwordx8": 8, "s_load_dwordx16": 16}


def compile_global(instruction: Instruction) -> Run:
    """Return the function that runs a buffer or global instruction.

    Raises:
        UnmodelledInstructionError: it is none that the emulator knows.
    """
    buffer = instruction.encoding == "MUBUF"
    known, atomic = NAMES.fullmatch(instruction.name), ATOMICS.fullmatch(instruction.name)
    if known:
        size = SIZES[known[2]]
        locate = _buffer_address(instruction, size) if buffer else _global_address(instruction)
        if buffer and instruction.fields["lds"]:
            return _load_to_lds(instruction, locate, size)
        return _load(instruction, locate, size) if known[1] == "load" else _store(instruction, locate, size)
    if atomic:
        locate = _buffer_address(instruction, 4) if buffer else _global_address(instruction)
        return _atomic(instruction, locate, atomic[1])
    raise unmodelled(instruction)


def compile_scalar_load(instruction: Instruction) -> Run:
    """Return the function that runs a scalar load."""
    count = SCALAR_LOADS.get(instruction.name)
    fields = instruction.fields
    if count is None or (fields["soffset_en"] and fields["imm"]):
        raise unmodelled(instruction)
    base, register = long_source(instruction, fields["sbase"]), fields["sdata"]
    immediate = (fields["offset"] ^ 1 << 20) - (1 << 20)
    offset = None if fields["imm"] else scalar_source(instruction, fields["offset"] & 127)

    def run(waves: Waves) -> None:
        shift: Addresses | int = immediate if offset is None else offset(waves).astype(np.int64)
        addresses = base(waves).view(np.int64) + shift & ~3
        chosen = slice(None) if waves.running is None else waves.running
        raw = waves.memory.read(np.broadcast_to(addresses, (waves.count,))[chosen], 4 * count)
        words = np.ascontiguousarray(raw).view(np.uint32)
        for index in range(count):
            waves.scalars[register + index][chosen] = words[:, index]

    return run


def _global_address(instruction: Instruction) -> Locate:
    fields = instruction.fields
    offset = (fields["offset"] ^ 1 << 12) - (1 << 12)
    low, saddr = vector_source(instruction, fields["addr"]), fields["saddr"]
    if fields["sve"]:
        raise unmodelled(instruction, "sve")
    if saddr < 106 or saddr == 106:
        base = long_source(instruction, saddr)
        return lambda waves: (base(waves).view(np.int64)[:, None] + low(waves) + offset, waves.lanes)
    high = vector_source(instruction, fields["addr"], 1)
    return lambda waves: (low(waves).astype(np.int64) + (high(waves).astype(np.int64) << 32) + offset, waves.lanes)


def _buffer_address(instruction: Instruction, size: int) -> Locate:
    """Address by a raw buffer descriptor; lanes beyond its size are off, as in hardware."""
    fields = instruction.fields
    if fields["idxen"]:
        raise unmodelled(instruction, "an indexed buffer")
    descriptor, immediate = fields["srsrc"], fields["offset"]
    shift = scalar_source(instruction, fields["soffset"])
    vector = vector_source(instruction, fields["vaddr"]) if fields["offen"] else None

    def locate(waves: Waves) -> tuple[Addresses, Mask | None]:
        low, high, records = (waves.scalars[descriptor + index].astype(np.int64) for index in range(3))
        offset = shift(waves).astype(np.int64)[:, None] + immediate
        if vector is not None:
            offset = offset + vector(waves)
        offset = np.broadcast_to(offset, (waves.count, LANES))
        inside = offset + size <= records[:, None]
        base = low | (high & 0xFFFF) << 32
        return base[:, None] + offset, _both(inside, waves.lanes)

    return locate


def _both(inside: Mask, lanes: Mask | None) -> Mask | None:
    if inside.all():
        return lanes
    return inside if lanes is None else inside & lanes


def _register(instruction: Instruction) -> int:
    fields = instruction.fields
    field = "vdata" if instruction.encoding == "MUBUF" else "vdst" if "load" in instruction.name else "data"
    return vector_register(instruction, fields[field]) + (256 if fields["acc"] else 0)


def _load(instruction: Instruction, locate: Locate, size: int) -> Run:
    register = _register(instruction)

    def run(waves: Waves) -> None:
        for index, word in enumerate(_fetch(waves, *locate(waves), size)):
            waves.set_vector(register + index, word)

    return run


def _fetch(waves: Waves, addresses: Addresses, lanes: Mask | None, size: int) -> list[Words]:
    """Read words at the lanes' addresses; lanes that do not access memory get 0."""
    shape = (waves.count, LANES)
    addresses = np.broadcast_to(addresses, shape)
    chosen = addresses.reshape(-1) if lanes is None else addresses[lanes]
    raw = waves.memory.read(chosen, size)
    if size < 4:
        raw = np.pad(raw, ((0, 0), (0, 4 - size)))
    words = np.ascontiguousarray(raw).view(np.uint32)
    if lanes is None:
        return [words[:, index].reshape(shape) for index in range(words.shape[1])]
    found = np.zeros((words.shape[1], *shape), np.uint32)
    for index in range(words.shape[1]):
        found[index][lanes] = words[:, index]
    return list(found)


def _store(instruction: Instruction, locate: Locate, size: int) -> Run:
    register, count = _register(instruction), max(1, size // 4)

    def run(waves: Waves) -> None:
        addresses, lanes = locate(waves)
        chosen = slice(None) if lanes is None else lanes
        where = np.broadcast_to(addresses, (waves.count, LANES))[chosen].reshape(-1)
        words = np.stack([waves.vectors[register + index][chosen].reshape(-1) for index in range(count)], -1)
        waves.memory.write(where, words.view(np.uint8)[:, :size])

    return run


def _load_to_lds(instruction: Instruction, locate: Locate, size: int) -> Run:
    """Load to local memory at M0 + immediate + lane x size."""
    immediate = instruction.fields["offset"]

    def run(waves: Waves) -> None:
        addresses, lanes = locate(waves)
        words = _fetch(waves, addresses, lanes, size)
        start = (waves.scalars[M0].astype(np.int64) & 0x3FFFF)[:, None] + immediate + np.arange(LANES) * size
        where = (start + waves.lds_start)[..., None] + np.arange(size)
        raw = np.stack(words, -1).view(np.uint8)
        chosen = slice(None) if waves.lanes is None else waves.lanes
        waves.lds[where[chosen]] = raw[chosen]

    return run


def _atomic(instruction: Instruction, locate: Locate, operation: str) -> Run:
    """Add lane by lane where several lanes meet in one word."""
    if instruction.fields["sc0"]:
        raise unmodelled(instruction, "an atomic's result")
    register, kind = _register(instruction), operation.replace("add_", "")

    def run(waves: Waves) -> None:
        addresses, lanes = locate(waves)
        chosen = slice(None) if lanes is None else lanes
        where = np.broadcast_to(addresses, (waves.count, LANES))[chosen].reshape(-1)
        values = waves.vectors[register][chosen].reshape(-1)
        add_to_memory(waves.memory, where, values, kind)

    return run
