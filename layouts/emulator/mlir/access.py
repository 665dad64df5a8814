"""Memory operations: loads, stores, buffers, local memory and atomics."""

from typing import Any

import numpy as np

from preshuffle.layouts.emulator.atomics import add_to_memory
from preshuffle.layouts.emulator.mlir.operations import Operation, Run, compiles
from preshuffle.layouts.emulator.mlir.threads import Addresses, BufferView, Mask, Threads
from preshuffle.layouts.emulator.mlir.types import (
    BUFFER_SPACES,
    LDS_SPACE,
    Array,
    IrType,
    of_bytes,
    parse_type,
    signed,
    to_bytes,
)

GLOBAL_SPACE = 1
DYNAMIC = -(1 << 31)
"""Index of ``getelementptr`` that is an operand."""

LOW_WORD = 0xFFFFFFFF
ADDITIONS = (1, 11)
"""Numbers of ``atomicrmw`` that add integers and floats."""


@compiles("llvm.mlir.addressof")
def _address_of(operation: Operation) -> Run:
    name = operation.parsed.attributes["global_name"].lstrip("@")
    return lambda threads: np.array([threads.variables[name]], np.uint64)


@compiles("llvm.getelementptr")
def _element_pointer(operation: Operation) -> Run:
    type, constants = (
        parse_type(operation.parsed.attributes["elem_type"]),
        operation.parsed.numbers("rawConstantIndices"),
    )

    def offset_of(dynamic: tuple[Array, ...]) -> Addresses:
        remaining, inner = iter(dynamic), type
        offset = np.zeros(1, np.int64)
        for level, index in enumerate(constants):
            value = signed(next(remaining)).astype(np.int64) if index == DYNAMIC else np.array([index], np.int64)
            if level and inner.element is None:
                field = int(value[0])
                offset = offset + sum(part.size for part in inner.parts[:field])
                inner = inner.parts[field]
                continue
            if level:
                inner = inner.element or inner
            offset = offset + value * inner.size
        return offset

    def pointer(threads: Threads, base: Any, *dynamic: Array) -> Any:
        offset = offset_of(dynamic)
        if isinstance(base, BufferView):
            return BufferView(base.start + offset.view(np.uint64), base.size - offset)
        return (base.view(np.int64) + offset).view(np.uint64)

    return pointer


def _space(operation: Operation, operand: int) -> int:
    space = operation.operands[operand].space
    if space in BUFFER_SPACES:
        raise operation.unmodelled("through a buffer pointer")
    return space


@compiles("llvm.load")
def _load(operation: Operation) -> Run:
    space, result = _space(operation, 0), operation.result
    return lambda threads, address: of_bytes(threads.read(space, address, result.size), result)


@compiles("llvm.store")
def _store(operation: Operation) -> Run:
    space, type = _space(operation, 1), operation.operands[0]
    return lambda threads, value, address: threads.write(space, address, to_bytes(value, type))


@compiles("rocdl.make.buffer.rsrc")
def _buffer(operation: Operation) -> Run:
    def buffer(threads: Threads, base: Array, stride: Array, records: Array, flags: Array) -> BufferView:
        if np.any(stride):
            raise operation.unmodelled("a structured buffer")
        return BufferView(base, records.astype(np.int64) & LOW_WORD)

    return buffer


def _within(view: BufferView, offset: Array, shift: Array, size: int) -> tuple[Array, Mask]:
    start = (offset.astype(np.int64) & LOW_WORD) + (shift.astype(np.int64) & LOW_WORD)
    return view.start + start.view(np.uint64), start + size <= view.size


@compiles("rocdl.raw.ptr.buffer.load")
def _buffer_load(operation: Operation) -> Run:
    result = operation.result

    def load(threads: Threads, view: BufferView, offset: Array, shift: Array, *flags: Array) -> Array:
        address, inside = _within(view, offset, shift, result.size)
        return of_bytes(threads.read(GLOBAL_SPACE, address, result.size, inside), result)

    return load


@compiles("rocdl.raw.ptr.buffer.store")
def _buffer_store(operation: Operation) -> Run:
    type = operation.operands[0]

    def store(threads: Threads, value: Array, view: BufferView, offset: Array, shift: Array, *flags: Array) -> None:
        address, inside = _within(view, offset, shift, type.size)
        threads.write(GLOBAL_SPACE, address, to_bytes(value, type), inside)

    return store


def _lds_places(threads: Threads, base: Array, immediate: int, size: int) -> Array:
    """Return each lane's place: that of the wave's first active lane, and ``size`` bytes per lane."""
    first = threads.everyone(base)[threads.first_active()]
    return (first.astype(np.int64) + immediate + threads.lane.astype(np.int64) * size).view(np.uint64)


@compiles("rocdl.raw.ptr.buffer.load.lds")
def _buffer_load_lds(operation: Operation) -> Run:
    def load(
        threads: Threads, view: BufferView, base: Array, size: Array, offset: Array, shift: Array, immediate: Array
    ) -> None:
        bytes_each, extra = int(size[0]), int(immediate[0])
        address, inside = _within(view, offset, shift + shift.dtype.type(extra), bytes_each)
        raw = threads.read(GLOBAL_SPACE, address, bytes_each, inside)
        threads.write(LDS_SPACE, _lds_places(threads, base, extra, bytes_each), raw)

    return load


def _sum_kind(operation: Operation, type: IrType) -> str:
    scalar = type.scalar
    if type.size == 4 and scalar.kind == "float" and scalar.bits == 32:
        return "f32"
    if type.size == 4 and scalar.kind in ("bf16", "float") and scalar.bits == 16:
        return "pk_bf16" if scalar.kind == "bf16" else "pk_f16"
    raise operation.unmodelled(f"of {type.size} bytes")


def _add(threads: Threads, address: Array, value: Array, type: IrType, kind: str, allowed: Mask | None = None) -> None:
    chosen = threads.active(allowed)
    words = np.ascontiguousarray(threads.everyone(to_bytes(value, type))[chosen]).view(np.uint32)[:, 0]
    add_to_memory(threads.memory, threads.everyone(address).view(np.int64)[chosen], words, kind)


@compiles("rocdl.raw.ptr.buffer.atomic.fadd")
def _buffer_add(operation: Operation) -> Run:
    type = operation.operands[0]
    kind = _sum_kind(operation, type)

    def add(threads: Threads, value: Array, view: BufferView, offset: Array, shift: Array, *flags: Array) -> Array:
        address, inside = _within(view, offset, shift, type.size)
        _add(threads, address, value, type, kind, inside)
        return value  # the result is never used: FlyDSL only adds

    return add


@compiles("llvm.atomicrmw")
def _atomic(operation: Operation) -> Run:
    type = operation.operands[1]
    if operation.operands[0].space == LDS_SPACE or operation.parsed.number("bin_op") not in ADDITIONS:
        raise operation.unmodelled(f"operation {operation.parsed.attributes['bin_op']}")
    kind = _sum_kind(operation, type)

    def add(threads: Threads, address: Array, value: Array) -> Array:
        _add(threads, address, value, type, kind)
        return value

    return add
