"""Floating-point operations of MLIR kernels.

float32 and float64 are numpy's; bf16 is rounded half to even.

Reciprocal, exponential, logarithm and hyperbolic tangent are numpy's: the hardware's differ in the last place.
"""

from collections.abc import Callable

import numpy as np

from preshuffle.layouts.emulator.mlir.operations import Operation, Run, compiles, without_type
from preshuffle.layouts.emulator.mlir.threads import Threads
from preshuffle.layouts.emulator.mlir.types import Array, floats, of_floats

Function = Callable[..., Array]


def _fused(first: Array, second: Array, third: Array) -> Array:
    return first.astype(np.float64) * second + third


def _median(first: Array, second: Array, third: Array) -> Array:
    return np.fmax(np.fmin(first, second), np.fmin(np.fmax(first, second), third))


def _reciprocal(values: Array) -> Array:
    return 1 / values


FUNCTIONS: dict[str, Function] = {
    "llvm.fadd": np.add,
    "llvm.fsub": np.subtract,
    "llvm.fmul": np.multiply,
    "llvm.fdiv": np.divide,
    "llvm.fneg": np.negative,
    "llvm.intr.maximum": np.maximum,
    "llvm.intr.minimum": np.minimum,
    "llvm.intr.maxnum": np.fmax,
    "llvm.intr.minnum": np.fmin,
    "llvm.intr.fabs": np.abs,
    "llvm.intr.fma": _fused,
    "llvm.intr.fmuladd": _fused,
    "llvm.intr.exp2": np.exp2,
    "llvm.intr.exp": np.exp,
    "llvm.intr.log2": np.log2,
    "llvm.intr.log": np.log,
    "llvm.intr.sqrt": np.sqrt,
    "llvm.intr.floor": np.floor,
    "llvm.intr.ceil": np.ceil,
    "llvm.intr.rint": np.rint,
    "llvm.intr.roundeven": np.rint,
    "llvm.intr.copysign": np.copysign,
    "llvm.amdgcn.exp2": np.exp2,
    "llvm.amdgcn.log": np.log2,
    "llvm.amdgcn.rcp": _reciprocal,
    "llvm.amdgcn.fmed3": _median,
    "llvm.amdgcn.tanh": np.tanh,
    "llvm.exp2": np.exp2,
    "llvm.fabs": np.abs,
    "llvm.maxnum": np.fmax,
    "llvm.minnum": np.fmin,
    "llvm.fma": _fused,
    "llvm.tanh": np.tanh,
    "rocdl.exp2": np.exp2,
    "rocdl.log": np.log2,
    "rocdl.rcp": _reciprocal,
    "rocdl.tanh": np.tanh,
    "rocdl.fmed3": _median,
}


def _unordered(first: Array, second: Array) -> Array:
    return np.isnan(first) | np.isnan(second)


def _or_unordered(function: Function) -> Function:
    return lambda first, second: function(first, second) | _unordered(first, second)


PREDICATES: tuple[Function, ...] = (
    lambda first, second: _unordered(first, second) & False,
    np.equal,
    np.greater,
    np.greater_equal,
    np.less,
    np.less_equal,
    lambda first, second: np.less(first, second) | np.greater(first, second),
    lambda first, second: ~_unordered(first, second),
    _unordered,
    _or_unordered(np.equal),
    _or_unordered(np.greater),
    _or_unordered(np.greater_equal),
    _or_unordered(np.less),
    _or_unordered(np.less_equal),
    np.not_equal,
    lambda first, second: _unordered(first, second) | True,
)
"""LLVM's ``fcmp`` predicates by number: ordered ones, then unordered ones."""


@compiles(*FUNCTIONS)
def _function(operation: Operation) -> Run:
    function = FUNCTIONS.get(operation.label) or FUNCTIONS[without_type(operation.label)]
    types, result = operation.operands, operation.result

    def run(threads: Threads, *values: Array) -> Array:
        return of_floats(function(*(floats(value, type) for value, type in zip(values, types, strict=True))), result)

    return run


@compiles("llvm.fcmp")
def _compare(operation: Operation) -> Run:
    function = PREDICATES[operation.parsed.number("predicate")]
    first_type, second_type = operation.operands
    return lambda threads, first, second: function(floats(first, first_type), floats(second, second_type))


@compiles("llvm.fptrunc", "llvm.fpext")
def _convert(operation: Operation) -> Run:
    source, result = operation.operands[0], operation.result
    return lambda threads, values: of_floats(floats(values, source), result)
