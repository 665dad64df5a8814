"""Integer operations: arithmetic, comparison, conversion, pointers as numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from preshuffle.layouts.emulator.mlir.operations import Operation, Run, compiles
from preshuffle.layouts.emulator.mlir.threads import BufferView, Threads
from preshuffle.layouts.emulator.mlir.types import Array, floats, of_bytes, of_floats, signed, to_bytes

Binary = Callable[[Array, Array], Array]


def _signed(function: Binary) -> Binary:
    return lambda first, second: function(signed(first), signed(second)).view(first.dtype)


def _shift(function: Binary, arithmetic: bool = False) -> Binary:
    """Shift by at most the width less 1: more is poison in LLVM."""

    def shift(values: Array, amounts: Array) -> Array:
        bits = values.dtype.itemsize * 8
        amount = np.minimum(amounts, amounts.dtype.type(bits - 1))
        if arithmetic:
            return function(signed(values), amount.view(signed(values).dtype)).view(values.dtype)
        return function(values, amount)

    return shift


def _divide(quotient: bool) -> Binary:
    """Signed division that truncates, or its remainder; by 0 gives that by 1."""

    def divide(first: Array, second: Array) -> Array:
        dividend, divisor = signed(first).astype(np.int64), signed(second).astype(np.int64)
        divisor = np.where(divisor == 0, 1, divisor)
        whole = np.abs(dividend) // np.abs(divisor) * np.sign(dividend) * np.sign(divisor)
        return (whole if quotient else dividend - whole * divisor).astype(first.dtype)

    return divide


def _nonzero(values: Array) -> Array:
    return np.where(values == 0, values.dtype.type(1), values)


BINARY: dict[str, Binary] = {
    "llvm.add": np.add,
    "llvm.sub": np.subtract,
    "llvm.mul": np.multiply,
    "llvm.and": np.bitwise_and,
    "llvm.or": np.bitwise_or,
    "llvm.xor": np.bitwise_xor,
    "llvm.shl": _shift(np.left_shift),
    "llvm.lshr": _shift(np.right_shift),
    "llvm.ashr": _shift(np.right_shift, arithmetic=True),
    "llvm.udiv": lambda first, second: first // _nonzero(second),
    "llvm.urem": lambda first, second: first % _nonzero(second),
    "llvm.sdiv": _divide(quotient=True),
    "llvm.srem": _divide(quotient=False),
    "llvm.intr.umin": np.minimum,
    "llvm.intr.umax": np.maximum,
    "llvm.intr.smin": _signed(np.minimum),
    "llvm.intr.smax": _signed(np.maximum),
}
PREDICATES: tuple[Callable[..., Array], ...] = (
    *(np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal),
    *(np.less, np.less_equal, np.greater, np.greater_equal),
)
"""By number: equal, not equal, four signed orders, four unsigned ones."""

SIGNED_PREDICATES = range(2, 6)


@compiles(*BINARY)
def _binary(operation: Operation) -> Run:
    function = BINARY[operation.label]
    return lambda threads, first, second: function(first, second)


@compiles("llvm.icmp")
def _compare(operation: Operation) -> Run:
    predicate = operation.parsed.number("predicate")
    function = PREDICATES[predicate]
    if predicate in SIGNED_PREDICATES:
        return lambda threads, first, second: function(signed(first), signed(second))
    return lambda threads, first, second: function(first, second)


@compiles("llvm.select")
def _select(operation: Operation) -> Run:
    def select(threads: Threads, condition: Array, first: Any, second: Any) -> Any:
        if isinstance(first, BufferView):
            start = np.where(condition, first.start, second.start)
            return BufferView(start, np.where(condition, first.size, second.size))
        return np.where(condition.reshape(condition.shape + (1,) * (first.ndim - condition.ndim)), first, second)

    return select


@compiles("llvm.zext")
def _extend(operation: Operation) -> Run:
    dtype = operation.result.dtype
    return lambda threads, values: values.astype(dtype)


@compiles("llvm.sext")
def _extend_signed(operation: Operation) -> Run:
    dtype = operation.result.dtype
    return lambda threads, values: signed(values).astype(np.int64).astype(dtype)


@compiles("llvm.trunc")
def _truncate(operation: Operation) -> Run:
    dtype = operation.result.dtype
    if operation.result.scalar.bits == 1:
        return lambda threads, values: (values & values.dtype.type(1)).astype(np.bool_)
    if operation.result.scalar.bits == 4:
        return lambda threads, values: values.astype(np.uint8) & np.uint8(15)
    return lambda threads, values: values.astype(dtype)


@compiles("llvm.sitofp")
def _from_signed(operation: Operation) -> Run:
    result = operation.result
    return lambda threads, values: of_floats(signed(values).astype(np.float64), result)


@compiles("llvm.uitofp")
def _from_unsigned(operation: Operation) -> Run:
    result = operation.result
    return lambda threads, values: of_floats(values.astype(np.float64), result)


@compiles("llvm.fptosi", "llvm.fptoui")
def _to_integer(operation: Operation) -> Run:
    source, dtype = operation.operands[0], operation.result.dtype
    return lambda threads, values: floats(values, source).astype(np.int64).astype(dtype)


@compiles("llvm.bitcast")
def _cast_bits(operation: Operation) -> Run:
    source, result = operation.operands[0], operation.result
    return lambda threads, values: of_bytes(to_bytes(values, source), result)


@compiles("llvm.ptrtoint", "llvm.inttoptr", "llvm.addrspacecast")
def _convert_pointer(operation: Operation) -> Run:
    dtype = operation.result.dtype
    return lambda threads, values: values if isinstance(values, BufferView) else values.astype(dtype)
