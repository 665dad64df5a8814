"""Constants, vectors and structs."""

import re
from typing import Any

import numpy as np

from preshuffle.layouts.emulator.mlir.operations import Operation, Run, compiles
from preshuffle.layouts.emulator.mlir.threads import Threads
from preshuffle.layouts.emulator.mlir.types import Array, IrType, of_floats

_WIDTHS = {16: np.uint16, 32: np.uint32, 64: np.uint64}


@compiles("llvm.mlir.constant")
def _constant(operation: Operation) -> Run:
    value = constant(operation.parsed.attributes["value"], operation.result)
    return lambda threads: value


def constant(text: str, type: IrType) -> Array:
    """Return the value of a constant as MLIR prints it."""
    if type.element is None:
        return _scalar(text.split(" : ")[0], type)
    body = text.partition("dense<")[2].rpartition("> :")[0]
    if body.startswith('"0x'):
        return np.frombuffer(bytes.fromhex(body.strip('"')[2:]), type.dtype)[None, :]
    items = body.strip("[]").split(",") if body.startswith("[") else [body] * type.count
    return np.stack([_scalar(item.strip(), type.scalar) for item in items], 1)


def _scalar(text: str, type: IrType) -> Array:
    if type.kind == "integer":
        number = {"true": 1, "false": 0}.get(text)
        number = int(text, 0) if number is None else number
        return np.array([number & (1 << type.bits) - 1], np.uint64).astype(type.dtype)
    if text.startswith("0x"):
        return np.array([int(text, 16)], np.uint64).astype(_WIDTHS[type.bits]).view(type.dtype)
    return of_floats(np.array([float(text)]), type)


@compiles("llvm.mlir.poison", "llvm.mlir.undef", "llvm.mlir.zero")
def _undefined(operation: Operation) -> Run:
    value = _zero(operation.result)
    return lambda threads: value


def _zero(type: IrType) -> Any:
    if type.kind == "struct":
        return [_zero(part) for part in type.parts]
    return np.zeros((1,) if type.element is None else (1, type.count), type.dtype)


@compiles("llvm.insertelement")
def _insert_element(operation: Operation) -> Run:
    def insert(threads: Threads, vector: Array, value: Array, index: Array) -> Array:
        rows = max(len(vector), len(value), len(index))
        out = np.broadcast_to(vector, (rows, vector.shape[1])).copy()
        out[np.arange(rows), np.broadcast_to(index, (rows,)).astype(np.intp)] = value
        return out

    def insert_uniform(threads: Threads, vector: Array, value: Array, index: Array) -> Array:
        if len(index) > 1:
            return insert(threads, vector, value, index)
        rows = max(len(vector), len(value))
        out = np.broadcast_to(vector, (rows, vector.shape[1])).copy()
        out[:, int(index[0])] = value
        return out

    return insert_uniform


@compiles("llvm.extractelement")
def _extract_element(operation: Operation) -> Run:
    def extract(threads: Threads, vector: Array, index: Array) -> Array:
        if len(index) == 1:
            return vector[:, int(index[0])]
        rows = np.arange(len(index))
        return np.broadcast_to(vector, (len(index), vector.shape[1]))[rows, index.astype(np.intp)]

    return extract


@compiles("llvm.shufflevector")
def _shuffle(operation: Operation) -> Run:
    chosen = [max(index, 0) for index in operation.parsed.numbers("mask")]  # -1 is poison

    def shuffle(threads: Threads, first: Array, second: Array) -> Array:
        rows = max(len(first), len(second))
        both = [np.broadcast_to(vector, (rows, vector.shape[1])) for vector in (first, second)]
        return np.concatenate(both, 1)[:, chosen]

    return shuffle


def _position(operation: Operation) -> list[int]:
    return [int(index) for index in re.findall(r"\d+", operation.parsed.attributes["position"].partition(":")[2])]


@compiles("llvm.extractvalue")
def _extract_value(operation: Operation) -> Run:
    position = _position(operation)

    def extract(threads: Threads, value: Any) -> Any:
        for index in position:
            value = value[index] if isinstance(value, list) else value[:, index]
        return value

    return extract


@compiles("llvm.insertvalue")
def _insert_value(operation: Operation) -> Run:
    position = _position(operation)
    if len(position) > 1:
        raise operation.unmodelled("a nested position")

    def insert(threads: Threads, container: Any, value: Any) -> Any:
        if isinstance(container, list):
            return [value if index == position[0] else part for index, part in enumerate(container)]
        rows = max(len(container), len(value))
        out = np.broadcast_to(container, (rows, container.shape[1])).copy()
        out[:, position[0]] = value
        return out

    return insert
