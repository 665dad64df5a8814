"""Constants, vectors, lanes, conversions and matrix cores of MLIR against numpy, torch and explicit loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from support.flydsl.operations import WITHOUT_EFFECT, run, threads

FOUR, ARRAY = "vector<4xi32>", "!llvm.array<4 x i32>"
WAVE = np.arange(64, dtype=np.uint32)


@pytest.mark.parametrize(
    ("text", "type", "value"),
    [
        ("-2 : i32", "i32", [2**32 - 2]),
        ("true", "i1", [True]),
        ("false", "i1", [False]),
        ("19 : index", "i64", [19]),
        ("-1.500000e+00 : f32", "f32", [-1.5]),
        ("0xFF800000 : f32", "f32", [-np.inf]),
        ("dense<2.000000e+00> : vector<3xf32>", "vector<3xf32>", [[2.0, 2.0, 2.0]]),
        ("dense<[1, -1]> : vector<2xi16>", "vector<2xi16>", [[1, 65535]]),
        ("1.000000e+00 : bf16", "bf16", [0x3F80]),
    ],
)
def test_constants(text: str, type: str, value: list[Any]) -> None:
    assert run(f'%r = "llvm.mlir.constant"() <{{value = {text}}}> : () -> {type}').tolist() == value


@pytest.mark.parametrize("name", ["poison", "undef", "zero"])
def test_values_without_a_meaning_are_zeros(name: str) -> None:
    assert run(f'%r = "llvm.mlir.{name}"() : () -> vector<2xf32>').tolist() == [[0, 0]]
    parts = run(f'%r = "llvm.mlir.{name}"() : () -> !llvm.struct<(i32, vector<2xf16>)>')
    assert [part.tolist() for part in parts] == [[0], [[0, 0]]]


def test_parts_of_vectors_and_structs() -> None:
    vector = np.arange(12, dtype=np.uint32).reshape(3, 4)
    at, places = np.array([2], np.uint32), np.array([0, 3, 1], np.uint32)
    extract = '%r = "llvm.extractelement"(%a, %b) : (vector<4xi32>, i32) -> i32'
    assert run(extract, vector, at).tolist() == [2, 6, 10]
    assert run(extract, vector, places).tolist() == [0, 7, 9]
    insert = '%r = "llvm.insertelement"(%a, %b, %c) : (vector<4xi32>, i32, i32) -> vector<4xi32>'
    new = np.array([77], np.uint32)
    assert run(insert, vector, new, at)[:, 2].tolist() == [77, 77, 77]
    assert run(insert, vector, new, places).tolist() == [[77, 1, 2, 3], [4, 5, 6, 77], [8, 77, 10, 11]]
    shuffle = f'%r = "llvm.shufflevector"(%a, %b) <{{mask = array<i32: 1, 4, -1>}}> : ({FOUR}, {FOUR}) -> vector<3xi32>'
    assert run(shuffle, vector, vector + np.uint32(100))[:, :2].tolist() == [[1, 100], [5, 104], [9, 108]]
    struct = [at, vector]
    get = '%r = "llvm.extractvalue"(%a) <{position = array<i64: 1>}> : (!llvm.struct<(i32, vector<4xi32>)>) -> i32'
    assert run(get, struct) is vector
    put = f'%r = "llvm.insertvalue"(%a, %b) <{{position = array<i64: 0>}}> : ({ARRAY}, i32) -> {ARRAY}'
    assert run(put, vector, new)[:, 0].tolist() == [77, 77, 77]
    assert run(put, struct, new)[0] is new


def test_select_takes_a_condition_per_thread() -> None:
    found = run('%r = "llvm.select"(%c, %a, %b) : (i1, i32, i32) -> i32', WAVE % 2 == 0, WAVE, WAVE + np.uint32(100))
    assert found.tolist() == [lane if lane % 2 == 0 else lane + 100 for lane in range(64)]


@pytest.mark.parametrize(
    ("source", "result", "value", "wanted"),
    [
        ("vector<2xi32>", "vector<4xi16>", np.array([[0x20001, 0x40003]], np.uint32), [[1, 2, 3, 4]]),
        ("f32", "i32", np.array([1.0], np.float32), [0x3F800000]),
        ("vector<8xi4>", "i32", np.array([[1, 2, 3, 4, 5, 6, 7, 8]], np.uint8), [0x87654321]),
        ("i32", "vector<8xi4>", np.array([0x87654321], np.uint32), [[1, 2, 3, 4, 5, 6, 7, 8]]),
        ("vector<32xi1>", "i32", np.array([[True] + [False] * 30 + [True]]), [0x80000001]),
    ],
)
def test_bits_are_kept(source: str, result: str, value: Any, wanted: list[Any]) -> None:
    assert run(f'%r = "llvm.bitcast"(%a) : ({source}) -> {result}', value).tolist() == wanted


def test_ids() -> None:
    on = threads(blocks=3)
    assert run('%r = "rocdl.workitem.id.x"() : () -> i32', on=on).tolist() == list(range(64)) * 3
    assert run('%r = "rocdl.workitem.id.y"() : () -> i32', on=on).tolist() == [0] * 192
    assert run('%r = "rocdl.workitem.id.z"() : () -> i32', on=on).tolist() == [0] * 192
    for axis, start in (("x", 0), ("y", 10), ("z", 20)):
        ids = run(f'%r = "rocdl.workgroup.id.{axis}"() : () -> i32', on=on)
        assert ids.tolist() == [start + block for block in range(3) for _ in range(64)]
    sizes = [run(f'%r = "rocdl.grid.dim.{axis}"() : () -> i64', on=on).tolist() for axis in "xyz"]
    assert sizes == [[3], [7], [9]]


def test_lanes_read_each_other() -> None:
    on = threads(per_block=128)
    value = np.arange(128, dtype=np.uint32) * np.uint32(3)
    on.mask = np.arange(128) % 64 >= 5
    for name in ("rocdl.readfirstlane", "llvm.amdgcn.readfirstlane"):
        assert run(f'%r = "{name}"(%a) : (i32) -> i32', value, on=on).tolist() == [15] * 64 + [207] * 64
    on.mask = None
    for name in ("rocdl.readlane", "llvm.amdgcn.readlane"):
        found = run(f'%r = "{name}"(%a, %b) : (i32, i32) -> i32', value, np.array([7], np.uint32), on=on)
        assert found.tolist() == [21] * 64 + [213] * 64
    index = (np.arange(128, dtype=np.uint32) + np.uint32(1)) % np.uint32(64) * np.uint32(4)
    for name in ("rocdl.ds_bpermute", "llvm.amdgcn.ds.bpermute"):
        found = run(f'%r = "{name}"(%a, %b) : (i32, i32) -> i32', index, value, on=on)
        assert found.tolist() == [3 * (lane // 64 * 64 + (lane + 1) % 64) for lane in range(128)]


@pytest.mark.parametrize(("pattern", "source"), [(0x041F, 1), (0x401F, 16), (0x0C1F, 3)])
def test_swizzle_flips_bits_of_the_lane(pattern: int, source: int) -> None:
    found = run('%r = "rocdl.ds_swizzle"(%a, %b) : (i32, i32) -> i32', WAVE, np.array([pattern], np.uint32))
    assert found.tolist() == [lane ^ source for lane in range(64)]


def test_bits_below_the_lane_are_counted() -> None:
    low, high = np.array([0xF0F0F0F0], np.uint32), np.array([0x00FF00FF], np.uint32)
    for prefix in ("rocdl", "llvm.amdgcn"):
        part = run(f'%r = "{prefix}.mbcnt.lo"(%a, %b) : (i32, i32) -> i32', low, np.array([0], np.uint32))
        found = run(f'%r = "{prefix}.mbcnt.hi"(%a, %b) : (i32, i32) -> i32', high, part)
        both = int(low[0]) | int(high[0]) << 32
        assert found.tolist() == [(both & (1 << lane) - 1).bit_count() for lane in range(64)]


DPP: dict[int, Callable[[int], int | None]] = {
    0xB1: lambda lane: lane ^ 1,
    0x4E: lambda lane: lane ^ 2,
    0x104: lambda lane: lane + 4 if lane % 16 < 12 else None,
    0x114: lambda lane: lane - 4 if lane % 16 >= 4 else None,
    0x124: lambda lane: lane // 16 * 16 + (lane - 4) % 16,
    0x140: lambda lane: lane // 16 * 16 + 15 - lane % 16,
    0x141: lambda lane: lane // 8 * 8 + 7 - lane % 8,
    0x142: lambda lane: lane // 16 * 16 - 1 if lane >= 16 else None,
    0x143: lambda lane: 31 if lane >= 32 else None,
}


@pytest.mark.parametrize("control", sorted(DPP))
def test_dpp_moves_between_lanes(control: int) -> None:
    old = WAVE + np.uint32(1000)
    sources = [DPP[control](lane) for lane in range(64)]
    attributes = f"<{{dppCtrl = {control} : i32, rowMask = 15 : i32, bankMask = 15 : i32, boundCtrl = false}}>"
    found = run(f'%r = "rocdl.update.dpp"(%a, %b) {attributes} : (i32, i32) -> i32', old, WAVE)
    assert found.tolist() == [lane + 1000 if source is None else source for lane, source in enumerate(sources)]
    flags = [np.array([flag], np.uint32) for flag in (control, 15, 15)]
    name = '<{intrin = "llvm.amdgcn.update.dpp.i32"}>'
    intrinsic = f'%r = "llvm.call_intrinsic"(%a, %b, %c, %d, %e, %f) {name} : (i32, i32, i32, i32, i32, i1) -> i32'
    found = run(intrinsic, old, WAVE, *flags, np.array([True]))
    assert found.tolist() == [0 if source is None else source for source in sources]


def test_dpp_leaves_rows_and_banks_that_are_off() -> None:
    attributes = "<{dppCtrl = 177 : i32, rowMask = 2 : i32, bankMask = 1 : i32, boundCtrl = false}>"
    found = run(f'%r = "rocdl.update.dpp"(%a, %b) {attributes} : (i32, i32) -> i32', WAVE + np.uint32(1000), WAVE)
    assert found.tolist() == [lane ^ 1 if 16 <= lane < 20 else lane + 1000 for lane in range(64)]


E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
NUMBERS = np.random.default_rng(3).uniform(-440, 440, 64).astype(np.float32)


def fp4(code: int) -> float:
    return -E2M1[code - 8] if code >= 8 else E2M1[code]


@pytest.mark.parametrize("wide", ["bf16", "f16", "f32"])
def test_fp4_becomes_wider(wide: str) -> None:
    words, scale = np.random.default_rng(1).integers(0, 2**32, 64, np.uint32), np.full(64, 0.25, np.float32)
    for byte in range(4):
        name = f"rocdl.cvt.scalef32.pk.{wide}.fp4"
        text = f'%r = "{name}"(%a, %b) <{{srcSelIndex = {byte} : i32}}> : (i32, f32) -> vector<2x{wide}>'
        found = run(text, words, scale)
        codes = [int(word) >> 8 * byte & 255 for word in words]
        wanted = np.array([[fp4(code & 15) / 4, fp4(code >> 4) / 4] for code in codes])
        if wide == "bf16":
            found = torch.from_numpy(found).view(torch.bfloat16).float().numpy()
        np.testing.assert_array_equal(found, wanted)


def nearest_fp4(value: float) -> int:
    """Return the code of the nearest value, of two as near the even code."""
    distance = [(abs(abs(value) - number), code % 2, code) for code, number in enumerate(E2M1)]
    return min(distance)[2] | (8 if np.signbit(value) else 0)


@pytest.mark.parametrize("source", ["f32", "bf16", "f16"])
def test_floats_become_fp4(source: str) -> None:
    numbers = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 9.0, -0.1, -0.25, -5.1, 0.0] * 6, np.float32)[:64]
    low, high, scale = numbers, numbers[::-1].copy(), np.full(64, 1.0, np.float32)
    old = np.full(64, 0xAABBCCDD, np.uint32)
    head = f'%r = "rocdl.cvt.scalef32.pk.fp4.{source}"'
    if source == "f32":
        text = f"{head}(%a, %b, %c, %d) <{{dstSelIndex = 2 : i32}}> : (i32, f32, f32, f32) -> i32"
        found = run(text, old, low, high, scale)
    else:
        dtype = torch.bfloat16 if source == "bf16" else torch.float16
        pair = torch.stack([torch.from_numpy(low), torch.from_numpy(high)], 1).to(dtype)
        low, high = (column.float().numpy() for column in pair.unbind(1))
        codes = pair.view(torch.uint16).numpy() if source == "bf16" else pair.numpy()
        text = f"{head}(%a, %b, %c) <{{dstSelIndex = 2 : i32}}> : (i32, vector<2x{source}>, f32) -> i32"
        found = run(text, old, codes, scale)
    wanted = [0xAA00CCDD | (nearest_fp4(a) | nearest_fp4(b) << 4) << 16 for a, b in zip(low, high, strict=True)]
    assert found.tolist() == wanted


@pytest.mark.parametrize("high_word", [False, True])
def test_floats_become_fp8_as_in_torch(high_word: bool) -> None:
    other, old = NUMBERS[::-1].copy(), np.full(64, 0xAABBCCDD, np.uint32)
    text = f'%r = "rocdl.cvt.pk.fp8.f32"(%a, %b, %c) <{{wordSel = {str(high_word).lower()}}}> : (f32, f32, i32) -> i32'
    codes = [torch.from_numpy(x).to(torch.float8_e4m3fn).view(torch.uint8).numpy() for x in (NUMBERS, other)]
    pairs = [int(low) | int(high) << 8 for low, high in zip(*codes, strict=True)]
    wanted = [pair << 16 | 0xCCDD if high_word else 0xAABB0000 | pair for pair in pairs]
    assert run(text, NUMBERS, other, old).tolist() == wanted


@pytest.mark.parametrize("byte", range(4))
def test_int4_becomes_a_float_of_sixteenths(byte: int) -> None:
    words = np.random.default_rng(2).integers(0, 2**32, 64, np.uint32)
    assembly = f"v_cvt_off_f32_i4_sdwa $0, $1 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:BYTE_{byte}"
    found = run(f'%r = "llvm.inline_asm"(%a) <{{asm_string = "{assembly}"}}> : (i32) -> f32', words)
    nibbles = [int(word) >> 8 * byte & 15 for word in words]
    assert found.tolist() == [(nibble - 16 if nibble > 7 else nibble) / 16 for nibble in nibbles]


def test_two_floats_become_bf16_as_in_torch() -> None:
    other = NUMBERS[::-1].copy()
    text = '%r = "llvm.inline_asm"(%a, %b) <{asm_string = "v_cvt_pk_bf16_f32 $0, $1, $2"}> : (f32, f32) -> i32'
    codes = [torch.from_numpy(x).to(torch.bfloat16).view(torch.uint16).numpy() for x in (NUMBERS, other)]
    wanted = [int(low) | int(high) << 16 for low, high in zip(*codes, strict=True)]
    assert run(text, NUMBERS, other).tolist() == wanted


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_waits_have_no_effect(name: str) -> None:
    if name.startswith("asm"):
        assert run('"llvm.inline_asm"() <{asm_string = "s_waitcnt vmcnt(0)\\0As_barrier"}> : () -> ()') is None
    else:
        assert run(f'"{name}"() : () -> ()') is None


def test_blocks_are_counted_by_rocms_function() -> None:
    """ROCm's device library (``call @__ockl_get_num_groups``) returns the grid's blocks along a dimension, 0 to 2."""
    on = threads(blocks=3)
    text = '%r = "llvm.call"(%a) <{callee = @__ockl_get_num_groups}> : (i32) -> i64'
    assert [run(text, np.array([axis], np.uint32), on=on).tolist() for axis in range(3)] == [[3], [7], [9]]
