"""Arithmetic of MLIR against Python's integers and torch's floats."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from support.flydsl.operations import parse, run

Integers = Callable[[int, int], int]
BITS = (8, 16, 32, 64)
DTYPES: dict[int, Any] = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def quotient(first: int, second: int) -> int:
    whole = abs(first) // abs(second)
    return whole if (first < 0) == (second < 0) else -whole


UNSIGNED: dict[str, Integers] = {
    "llvm.add": operator.add,
    "llvm.sub": operator.sub,
    "llvm.mul": operator.mul,
    "llvm.and": operator.and_,
    "llvm.or": operator.or_,
    "llvm.xor": operator.xor,
    "llvm.udiv": operator.floordiv,
    "llvm.urem": operator.mod,
    "llvm.intr.umin": min,
    "llvm.intr.umax": max,
}
SIGNED: dict[str, Integers] = {
    "llvm.sdiv": quotient,
    "llvm.srem": lambda first, second: first - second * quotient(first, second),
    "llvm.intr.smin": min,
    "llvm.intr.smax": max,
}
SHIFTS: dict[str, Integers] = {"llvm.shl": operator.lshift, "llvm.lshr": operator.rshift, "llvm.ashr": operator.rshift}


def samples(bits: int, seed: int) -> list[int]:
    generator = np.random.default_rng(seed)
    edges = [1, 2, 3, 1 << bits - 1, (1 << bits) - 1, (1 << bits - 1) - 1]
    return (
        edges + [int(value) or 1 for value in generator.integers(0, 1 << bits, 58, np.uint64, endpoint=False)]
        if bits < 64
        else edges + [int(value) or 1 for value in generator.integers(0, 2**64 - 1, 58, np.uint64)]
    )


def call(name: str, bits: int, first: list[int], second: list[int]) -> list[int]:
    arrays = [np.array(values, np.uint64).astype(DTYPES[bits]) for values in (first, second)]
    found = run(f'%r = "{name}"(%a, %b) : (i{bits}, i{bits}) -> i{bits}', *arrays)
    assert found.dtype == DTYPES[bits]
    return [int(value) for value in found]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", sorted(UNSIGNED))
def test_unsigned_operations(name: str, bits: int) -> None:
    first, second = samples(bits, 1), samples(bits, 2)[::-1]
    wanted = [UNSIGNED[name](a, b) % (1 << bits) for a, b in zip(first, second, strict=True)]
    assert call(name, bits, first, second) == wanted


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("name", sorted(SIGNED))
def test_signed_operations(name: str, bits: int) -> None:
    first, second = samples(bits, 3), samples(bits, 4)[::-1]
    pairs = [(signed(a, bits), signed(b, bits)) for a, b in zip(first, second, strict=True)]
    assert call(name, bits, first, second) == [SIGNED[name](*pair) % (1 << bits) for pair in pairs]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", sorted(SHIFTS))
def test_shifts(name: str, bits: int) -> None:
    values = samples(bits, 5)
    amounts = [index % bits for index in range(len(values))]
    read = [signed(value, bits) if name == "llvm.ashr" else value for value in values]
    wanted = [SHIFTS[name](value, amount) % (1 << bits) for value, amount in zip(read, amounts, strict=True)]
    assert call(name, bits, values, amounts) == wanted


@pytest.mark.parametrize(
    ("number", "compare", "as_signed"),
    [
        *((0, operator.eq, False), (1, operator.ne, False), (2, operator.lt, True), (3, operator.le, True)),
        *((4, operator.gt, True), (5, operator.ge, True), (6, operator.lt, False), (7, operator.le, False)),
        *((8, operator.gt, False), (9, operator.ge, False)),
    ],
)
def test_comparisons_of_integers(number: int, compare: Callable[[int, int], bool], as_signed: bool) -> None:
    first, second = samples(32, 6), [*samples(32, 6)[1:], samples(32, 6)[-1]]
    arrays = [np.array(values, np.uint32) for values in (first, second)]
    found = run(f'%r = "llvm.icmp"(%a, %b) <{{predicate = {number} : i64}}> : (i32, i32) -> i1', *arrays)
    read = (lambda value: signed(value, 32)) if as_signed else (lambda value: value)
    assert found.tolist() == [compare(read(a), read(b)) for a, b in zip(first, second, strict=True)]


def test_widths() -> None:
    values = np.array([1, 0x7F, 0x80, 0xFF], np.uint8)
    assert run('%r = "llvm.sext"(%a) : (i8) -> i32', values).tolist() == [1, 127, 2**32 - 128, 2**32 - 1]
    assert run('%r = "llvm.zext"(%a) : (i8) -> i32', values).tolist() == [1, 127, 128, 255]
    assert run('%r = "llvm.sext"(%a) : (i1) -> i32', np.array([True, False])).tolist() == [2**32 - 1, 0]
    wide = np.array([0x12345, 0x10000, 3], np.uint32)
    assert run('%r = "llvm.trunc"(%a) : (i32) -> i16', wide).tolist() == [0x2345, 0, 3]
    assert run('%r = "llvm.trunc"(%a) : (i32) -> i1', wide).tolist() == [True, False, True]
    assert run('%r = "llvm.trunc"(%a) : (i32) -> i4', wide).tolist() == [5, 0, 3]


def test_integers_and_floats() -> None:
    values = np.array([5, 2**32 - 5, 2**31], np.uint32)
    assert run('%r = "llvm.sitofp"(%a) : (i32) -> f32', values).tolist() == [5, -5, -(2.0**31)]
    assert run('%r = "llvm.uitofp"(%a) : (i32) -> f32', values).tolist() == [5, 2.0**32, 2.0**31]
    floats = np.array([2.75, -2.75, 100.5], np.float32)
    assert run('%r = "llvm.fptosi"(%a) : (f32) -> i32', floats).tolist() == [2, 2**32 - 2, 100]
    assert run('%r = "llvm.fptoui"(%a) : (f32) -> i32', np.abs(floats)).tolist() == [2, 2, 100]


FLOATS = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -3.5, 1e-3, 65504.0, 7.5, 88.0, -120.25, 3.1415927, 1e30], np.float32
)
POSITIVE = np.abs(FLOATS) + np.float32(0.001)
UNARY: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Any]] = {
    "llvm.fneg": (torch.neg, FLOATS),
    "llvm.intr.fabs": (torch.abs, FLOATS),
    "llvm.fabs": (torch.abs, FLOATS),
    "llvm.intr.exp2": (torch.exp2, FLOATS),
    "llvm.exp2": (torch.exp2, FLOATS),
    "llvm.amdgcn.exp2": (torch.exp2, FLOATS),
    "rocdl.exp2": (torch.exp2, FLOATS),
    "llvm.intr.exp": (torch.exp, FLOATS),
    "llvm.intr.log2": (torch.log2, POSITIVE),
    "llvm.amdgcn.log": (torch.log2, POSITIVE),
    "rocdl.log": (torch.log2, POSITIVE),
    "llvm.intr.log": (torch.log, POSITIVE),
    "llvm.intr.sqrt": (torch.sqrt, POSITIVE),
    "llvm.intr.floor": (torch.floor, FLOATS),
    "llvm.intr.ceil": (torch.ceil, FLOATS),
    "llvm.intr.rint": (torch.round, FLOATS),
    "llvm.intr.roundeven": (torch.round, FLOATS),
    "llvm.amdgcn.rcp": (torch.reciprocal, FLOATS),
    "rocdl.rcp": (torch.reciprocal, FLOATS),
    "llvm.tanh": (torch.tanh, FLOATS),
    "llvm.amdgcn.tanh": (torch.tanh, FLOATS),
    "rocdl.tanh": (torch.tanh, FLOATS),
}
BINARY: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "llvm.fadd": torch.add,
    "llvm.fsub": torch.sub,
    "llvm.fmul": torch.mul,
    "llvm.fdiv": torch.div,
    "llvm.intr.maximum": torch.maximum,
    "llvm.intr.minimum": torch.minimum,
    "llvm.intr.maxnum": torch.fmax,
    "llvm.intr.minnum": torch.fmin,
    "llvm.maxnum": torch.fmax,
    "llvm.minnum": torch.fmin,
    "llvm.intr.copysign": torch.copysign,
}
TERNARY = ("llvm.intr.fma", "llvm.intr.fmuladd", "llvm.fma")
MEDIAN = ("llvm.amdgcn.fmed3", "rocdl.fmed3")


@pytest.mark.parametrize("name", sorted(UNARY))
def test_functions_of_one_float(name: str) -> None:
    function, values = UNARY[name]
    found = run(f'%r = "{name}"(%a) : (f32) -> f32', values)
    np.testing.assert_allclose(found, function(torch.from_numpy(values)).numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", sorted(BINARY))
def test_functions_of_two_floats(name: str) -> None:
    first, second = FLOATS, np.append(FLOATS[1:], np.float32(math.nan))
    found = run(f'%r = "{name}"(%a, %b) : (f32, f32) -> f32', first, second)
    np.testing.assert_array_equal(found, BINARY[name](torch.from_numpy(first), torch.from_numpy(second)).numpy())


@pytest.mark.parametrize("name", sorted(BINARY))
def test_functions_of_bf16_round_as_torch(name: str) -> None:
    first, second = (torch.from_numpy(values).to(torch.bfloat16) for values in (FLOATS, FLOATS[::-1].copy()))
    codes = [tensor.view(torch.uint16).numpy() for tensor in (first, second)]
    found = run(f'%r = "{name}"(%a, %b) : (bf16, bf16) -> bf16', *codes)
    wanted = BINARY[name](first.float(), second.float()).to(torch.bfloat16)
    numbers = torch.from_numpy(found).view(torch.bfloat16).float()
    np.testing.assert_array_equal(numbers.numpy(), wanted.float().numpy())


@pytest.mark.parametrize("name", TERNARY)
def test_multiply_and_add_rounds_once(name: str) -> None:
    first, second, third = FLOATS[:13], FLOATS[1:], FLOATS[:13][::-1]
    found = run(f'%r = "{name}"(%a, %b, %c) : (f32, f32, f32) -> f32', first, second, third)
    exact = [float(a) * float(b) + float(c) for a, b, c in zip(first, second, third, strict=True)]
    np.testing.assert_array_equal(found, np.array(exact).astype(np.float32))


@pytest.mark.parametrize("name", MEDIAN)
def test_the_middle_of_three(name: str) -> None:
    columns = [np.random.default_rng(seed).standard_normal(64).astype(np.float32) for seed in range(3)]
    found = run(f'%r = "{name}"(%a, %b, %c) : (f32, f32, f32) -> f32', *columns)
    np.testing.assert_array_equal(found, np.sort(np.stack(columns), 0)[1])


@pytest.mark.parametrize("number", range(16))
def test_comparisons_of_floats(number: int) -> None:
    values = [(1.0, 2.0), (2.0, 1.0), (1.0, 1.0), (math.nan, 1.0)]
    first, second = (np.array(column, np.float32) for column in zip(*values, strict=True))
    found = run(f'%r = "llvm.fcmp"(%a, %b) <{{predicate = {number} : i64}}> : (f32, f32) -> i1', first, second)
    # bits of LLVM's predicate: equal, greater, less, unordered
    wanted = [bool(number & bit) for bit in (4, 2, 1, 8)]
    assert found.tolist() == wanted


def test_widths_of_floats_round_as_torch() -> None:
    half = torch.from_numpy(FLOATS).to(torch.float16)
    np.testing.assert_array_equal(run('%r = "llvm.fptrunc"(%a) : (f32) -> f16', FLOATS), half.numpy())
    np.testing.assert_array_equal(run('%r = "llvm.fpext"(%a) : (f16) -> f32', half.numpy()), half.float().numpy())
    brain = torch.from_numpy(FLOATS).to(torch.bfloat16).view(torch.uint16).numpy()
    np.testing.assert_array_equal(run('%r = "llvm.fptrunc"(%a) : (f32) -> bf16', FLOATS), brain)


def test_an_operation_that_is_not_modelled_is_named() -> None:
    from preshuffle.layouts.emulator import UnmodelledInstructionError
    from preshuffle.layouts.emulator.mlir.operations import compile_operation

    for text, name in (
        ('%r = "rocdl.unheard.of"(%a) : (i32) -> i32', "rocdl.unheard.of: not modelled"),
        ('%r = "llvm.inline_asm"(%a) <{asm_string = "v_magic $0"}> : (i32) -> i32', "asm v_magic \\$0: not modelled"),
        ('%r = "llvm.call_intrinsic"(%a) <{intrin = "llvm.amdgcn.x.f32"}> : (f32) -> f32', "llvm.amdgcn.x.f32"),
    ):
        with pytest.raises(UnmodelledInstructionError, match=name):
            compile_operation(parse(text))
