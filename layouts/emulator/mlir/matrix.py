"""Matrix-core operations: as the same instructions of code objects."""

import re

import numpy as np

from preshuffle.layouts.emulator.matrix_tiles import (
    PLAIN,
    REGISTERS,
    PlainMfma,
    ScaledOperand,
    Words,
    plain_product,
    scaled_product,
)
from preshuffle.layouts.emulator.mlir.operations import Operation, Run, compiles
from preshuffle.layouts.emulator.mlir.threads import LANES, Threads
from preshuffle.layouts.emulator.mlir.types import Array, IrType, to_bytes

PLAIN_NAMES = {
    "rocdl.mfma.f32.16x16x32.bf16": "f32_16x16x32_bf16",
    "rocdl.mfma.f32.16x16x32.f16": "f32_16x16x32_f16",
    "rocdl.mfma.f32.16x16x16bf16.1k": "f32_16x16x16_bf16",
    "rocdl.mfma.f32.16x16x16f16": "f32_16x16x16_f16",
    "rocdl.mfma.f32.16x16x32.fp8.fp8": "f32_16x16x32_fp8_fp8",
    "rocdl.mfma.f32.16x16x32.fp8.bf8": "f32_16x16x32_fp8_bf8",
    "rocdl.mfma.f32.16x16x32.bf8.fp8": "f32_16x16x32_bf8_fp8",
    "rocdl.mfma.f32.16x16x32.bf8.bf8": "f32_16x16x32_bf8_bf8",
    "rocdl.mfma.i32.16x16x32.i8": "i32_16x16x32_i8",
}
SCALED_CODES = {"fp8_e4m3": "fp8", "bf8_e5m2": "bf8", "fp4_e2m1": "fp4", "0": "fp8", "1": "bf8", "4": "fp4"}
"""Formats as the attributes ``cbsz`` and ``blgp`` name them, by word or number."""


@compiles(*PLAIN_NAMES)
def _plain(operation: Operation) -> Run:
    kind = PLAIN[PLAIN_NAMES[operation.label]]
    if any(operation.parsed.number(name) for name in ("cbsz", "abid") if _is_number(operation, name)):
        raise operation.unmodelled("a broadcast between blocks")
    first_type, second_type, _ = operation.operands[:3]

    def run(threads: Threads, first: Array, second: Array, addend: Array, *flags: Array) -> Array:
        if any(np.any(flag) for flag in flags):
            raise operation.unmodelled("a broadcast between blocks")
        product = plain_product(
            kind, _words(threads, first, first_type), _words(threads, second, second_type), threads.arch
        )
        return _sum(threads, product, addend, kind)

    return run


def _is_number(operation: Operation, name: str) -> bool:
    return re.fullmatch(r"\d+( : \w+)?", operation.parsed.attributes.get(name, "")) is not None


@compiles("rocdl.mfma.scale.f32.16x16x128.f8f6f4")
def _scaled(operation: Operation) -> Run:
    codes = [_code(operation, name) for name in ("cbsz", "blgp")]
    scale_bytes = [operation.parsed.number(name) for name in ("opselA", "opselB")]
    types = operation.operands

    def run(threads: Threads, first: Array, second: Array, addend: Array, *scales: Array) -> Array:
        rows, columns = (
            ScaledOperand(
                codes[side],
                np.ascontiguousarray(_words(threads, value, types[side])[..., : REGISTERS[codes[side]]]),
                to_bytes(threads.everyone(scales[side]), types[3 + side])[:, scale_bytes[side]].reshape(-1, LANES),
            )
            for side, value in enumerate((first, second))
        )
        return _sum(threads, scaled_product(rows, columns, threads.arch), addend)

    return run


def _code(operation: Operation, name: str) -> str:
    text = operation.parsed.attributes.get(name, "0")
    found = re.search(r"matrix_format (\w+)", text)
    code = SCALED_CODES.get(found[1] if found else text.split()[0])
    if code is None:
        raise operation.unmodelled(f"format {text}")
    return code


def _words(threads: Threads, value: Array, type: IrType) -> Words:
    """Return an operand as words, shape ``[waves, 64, registers]``."""
    raw = to_bytes(threads.everyone(value), type)
    return raw.view(np.uint32).reshape(threads.waves, LANES, -1)


def _sum(threads: Threads, product: Array, addend: Array, kind: PlainMfma | None = None) -> Array:
    by_thread = np.moveaxis(product, 0, -1).reshape(threads.count, 4)
    if kind is not None and kind.whole_numbers:
        return (by_thread.astype(np.int64) + addend.view(np.int32)).astype(np.int32).view(np.uint32)
    return (by_thread + addend).astype(np.float32)
