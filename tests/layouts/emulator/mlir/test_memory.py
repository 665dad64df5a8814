"""Memory operations and matrix cores of MLIR against explicit loops and torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from preshuffle.layouts.emulator import GlobalMemory, MemoryAccessError
from preshuffle.layouts.emulator.mlir.threads import BufferView
from support.flydsl.operations import ALL, WITHOUT_EFFECT, run, threads

ZERO = np.array([0], np.uint32)


def memory_of(content: np.ndarray[Any, Any]) -> tuple[GlobalMemory, np.ndarray[Any, Any]]:
    memory = GlobalMemory()
    return memory, np.array([memory.add("data", content)], np.uint64)


def view_of(start: np.ndarray[Any, Any], size: int) -> BufferView:
    text = '%r = "rocdl.make.buffer.rsrc"(%a, %b, %c, %d) : (!llvm.ptr, i16, i64, i32) -> !llvm.ptr<8>'
    found: BufferView = run(text, start, np.array([0], np.uint16), np.array([size], np.uint64), ZERO)
    return found


def test_pointers_are_numbers() -> None:
    address = np.array([1 << 40], np.uint64)
    assert run('%r = "llvm.ptrtoint"(%a) : (!llvm.ptr<1>) -> i64', address) == address
    assert run('%r = "llvm.inttoptr"(%a) : (i64) -> !llvm.ptr<1>', address) == address
    assert run('%r = "llvm.addrspacecast"(%a) : (!llvm.ptr<1>) -> !llvm.ptr', address) == address
    assert run('%r = "llvm.mlir.addressof"() <{global_name = @buffer}> : () -> !llvm.ptr<3>').tolist() == [1024]


@pytest.mark.parametrize(
    ("type", "indices", "dynamic", "offset"),
    [
        ("f32", "-2147483648", [-3], -12),
        ("!llvm.array<8 x i16>", "1, 3", [], 22),
        ("!llvm.array<8 x i16>", "0, -2147483648", [5], 10),
        ("!llvm.struct<(i32, f64, i8)>", "0, 2", [], 12),
    ],
)
def test_addresses_of_elements(type: str, indices: str, dynamic: list[int], offset: int) -> None:
    operands = [np.array([value], np.int64).view(np.uint64) for value in dynamic]
    names = ", ".join(["%p", *("%i" for _ in dynamic)])
    types = ", ".join(["!llvm.ptr<1>", *("i64" for _ in dynamic)])
    attributes = f"<{{elem_type = {type}, rawConstantIndices = array<i32: {indices}>}}>"
    text = f'%r = "llvm.getelementptr"({names}) {attributes} : ({types}) -> !llvm.ptr<1>'
    assert run(text, np.array([1000], np.uint64), *operands).tolist() == [1000 + offset]


@pytest.mark.parametrize("space", ["global", "local"])
def test_loads_and_stores_by_lane(space: str) -> None:
    memory, start = memory_of(np.arange(1024, dtype=np.uint8))
    on = threads(memory=memory)
    base = start if space == "global" else np.array([256], np.uint64)
    pointer = "!llvm.ptr<1>" if space == "global" else "!llvm.ptr<3>"
    address = base + np.arange(64, dtype=np.uint64) * np.uint64(4)
    on.mask = np.arange(64) < 60
    values = np.arange(64, dtype=np.uint32) + np.uint32(7)
    run(f'"llvm.store"(%a, %b) : (i32, {pointer}) -> ()', values, address, on=on)
    found = run(f'%r = "llvm.load"(%a) : ({pointer}) -> i32', address, on=on)
    assert found.tolist() == [*range(7, 67), 0, 0, 0, 0]
    on.mask = None
    halves = run(f'%r = "llvm.load"(%a) : ({pointer}) -> vector<2xi16>', address, on=on)
    assert halves[:60].tolist() == [[lane + 7, 0] for lane in range(60)]


def test_what_no_buffer_owns_is_an_error() -> None:
    memory, start = memory_of(np.zeros(64, np.uint8))
    beyond = start + np.uint64(1 << 20)
    with pytest.raises(MemoryAccessError, match="which no buffer owns"):
        run('%r = "llvm.load"(%a) : (!llvm.ptr<1>) -> i32', beyond, on=threads(memory=memory))
    with pytest.raises(MemoryAccessError, match="of 4,096 of local memory"):
        run('%r = "llvm.load"(%a) : (!llvm.ptr<3>) -> i32', np.array([4095], np.uint64), on=threads(memory=memory))


def test_buffers_end_without_an_error() -> None:
    memory, start = memory_of(np.arange(64, dtype=np.uint32))
    on, view = threads(memory=memory), view_of(start, 40 * 4)
    offset, shift = np.arange(64, dtype=np.uint32) * np.uint32(4), np.array([4], np.uint32)
    load = '%r = "rocdl.raw.ptr.buffer.load"(%a, %b, %c) <{aux = 0 : i32}> : (!llvm.ptr<8>, i32, i32) -> i32'
    assert run(load, view, offset, shift, on=on).tolist() == [*range(1, 40), *[0] * 25]
    store = '"rocdl.raw.ptr.buffer.store"(%v, %a, %b, %c) <{aux = 0 : i32}> : (i32, !llvm.ptr<8>, i32, i32) -> ()'
    run(store, np.full(64, 9, np.uint32), view, offset, ZERO, on=on)
    assert memory.bytes_of("data").view(np.uint32).tolist() == [9] * 40 + list(range(40, 64))


def test_buffers_go_to_local_memory_lane_by_lane() -> None:
    memory, start = memory_of(np.arange(256, dtype=np.uint32))
    on = threads(memory=memory)
    offset = np.arange(64, dtype=np.uint32)[::-1].copy() * np.uint32(4)
    types = "(!llvm.ptr<8>, !llvm.ptr<3>, i32, i32, i32, i32) -> ()"
    text = f'"rocdl.raw.ptr.buffer.load.lds"(%a, %b, %c, %d, %e, %f) <{{aux = 0 : i32}}> : {types}'
    size, extra = np.array([4], np.uint32), np.array([8], np.uint32)
    base = np.arange(64, dtype=np.uint64) + np.uint64(512)  # the first lane's counts
    run(text, view_of(start, 1024), base, size, offset, ZERO, extra, on=on)
    assert on.lds[520 : 520 + 256].view(np.uint32).tolist() == [63 - lane + 2 for lane in range(64)]


@pytest.mark.parametrize(("type", "dtype"), [("vector<2xbf16>", torch.bfloat16), ("vector<2xf16>", torch.float16)])
def test_sums_of_pairs_round_after_every_addend(type: str, dtype: torch.dtype) -> None:
    start_pair = torch.tensor([1.0, -2.0]).to(dtype)
    addends = torch.from_numpy(np.random.default_rng(5).standard_normal((64, 2)).astype(np.float32)).to(dtype)
    memory, start = memory_of(start_pair.view(torch.uint16).numpy())
    raw = addends.view(torch.uint16).numpy()
    value = raw if dtype == torch.bfloat16 else raw.view(np.float16)
    text = (
        f'%r = "llvm.atomicrmw"(%a, %b) <{{bin_op = 11 : i64, ordering = 2 : i64}}> : (!llvm.ptr<1>, {type}) -> {type}'
    )
    run(text, start, value, on=threads(memory=memory))
    wanted = start_pair
    for pair in addends:
        wanted = (wanted.float() + pair.float()).to(dtype)
    assert memory.bytes_of("data").view(np.uint16).tolist() == wanted.view(torch.uint16).tolist()


def test_a_buffers_sums_stop_at_its_end() -> None:
    memory, start = memory_of(np.zeros(8, np.float32))
    offset = np.arange(64, dtype=np.uint32) % np.uint32(8) * np.uint32(4)
    types = "(f32, !llvm.ptr<8>, i32, i32) -> f32"
    text = f'%r = "rocdl.raw.ptr.buffer.atomic.fadd"(%a, %b, %c, %d) <{{aux = 0 : i32}}> : {types}'
    run(text, np.ones(64, np.float32), view_of(start, 24), offset, ZERO, on=threads(memory=memory))
    assert memory.bytes_of("data").view(np.float32).tolist() == [8.0] * 6 + [0.0] * 2


PLAIN = {
    "rocdl.mfma.f32.16x16x32.bf16": ("vector<8xbf16>", torch.bfloat16, torch.bfloat16, 32),
    "rocdl.mfma.f32.16x16x32.f16": ("vector<8xf16>", torch.float16, torch.float16, 32),
    "rocdl.mfma.f32.16x16x16bf16.1k": ("vector<4xi16>", torch.bfloat16, torch.bfloat16, 16),
    "rocdl.mfma.f32.16x16x16f16": ("vector<4xf16>", torch.float16, torch.float16, 16),
    "rocdl.mfma.f32.16x16x32.fp8.fp8": ("i64", torch.float8_e4m3fn, torch.float8_e4m3fn, 32),
    "rocdl.mfma.f32.16x16x32.fp8.bf8": ("i64", torch.float8_e4m3fn, torch.float8_e5m2, 32),
    "rocdl.mfma.f32.16x16x32.bf8.fp8": ("i64", torch.float8_e5m2, torch.float8_e4m3fn, 32),
    "rocdl.mfma.f32.16x16x32.bf8.bf8": ("i64", torch.float8_e5m2, torch.float8_e5m2, 32),
    "rocdl.mfma.i32.16x16x32.i8": ("i64", torch.int8, torch.int8, 32),
}


def operand(tile: torch.Tensor, type: str) -> np.ndarray[Any, Any]:
    """Return what each lane holds of a tile, shape (16, k): lane 16 g + i has row i and the g-th part of k."""
    count = tile.shape[1] // 4
    lanes = [tile[lane % 16, lane // 16 * count : (lane // 16 + 1) * count] for lane in range(64)]
    raw = torch.stack(lanes).view(torch.uint8).numpy()
    if type == "i64":
        return raw.view(np.uint64)[:, 0]
    return raw.view(np.float16 if "f16>" in type and "bf16" not in type else np.uint16)


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_plain_matrix_products(name: str) -> None:
    type, first, second, depth = PLAIN[name]
    generator = torch.Generator().manual_seed(4)
    numbers = [torch.randint(-8, 8, (16, depth), generator=generator) for _ in range(2)]
    tiles = [number.to(dtype) for number, dtype in zip(numbers, (first, second), strict=True)]
    whole = name.endswith("i8")
    addend = np.arange(256, dtype=np.uint32 if whole else np.float32).reshape(64, 4)
    result = "vector<4xi32>" if whole else "vector<4xf32>"
    attributes = "<{abid = 0 : i32, blgp = #rocdl<mfma_perm_b none>, cbsz = 0 : i32}>"
    text = f'%r = "{name}"(%a, %b, %c) {attributes} : ({type}, {type}, {result}) -> {result}'
    found = run(text, *(operand(tile, type) for tile in tiles), addend)
    product = tiles[0].double() @ tiles[1].double().T
    wanted = [
        [float(product[lane // 16 * 4 + at, lane % 16]) + addend[lane, at] for at in range(4)] for lane in range(64)
    ]
    assert found.view(np.int32).tolist() == wanted if whole else found.tolist() == wanted


FP4_VALUES = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=torch.float64)


def deep_operand(code: str, seed: int) -> tuple[np.ndarray[Any, Any], torch.Tensor]:
    """Return words of each lane, and the tile (16, 128) that they are."""
    generator = np.random.default_rng(seed)
    tile = torch.zeros((16, 128), dtype=torch.float64)
    words = np.zeros((64, 8), np.uint32)
    for lane in range(64):
        row, group = lane % 16, lane // 16
        if code == "fp4":
            codes = generator.integers(0, 16, 32)
            words[lane, :4] = (codes[0::2] | codes[1::2] << 4).astype(np.uint8).view(np.uint32)
            tile[row, 32 * group : 32 * group + 32] = FP4_VALUES[torch.from_numpy(codes)]
        else:
            raw = generator.integers(0, 0x70, 32).astype(np.uint8)
            words[lane] = raw.view(np.uint32)
            values = torch.from_numpy(raw).view(torch.float8_e4m3fn).double()
            tile[row, 16 * group : 16 * group + 16] = values[:16]
            tile[row, 64 + 16 * group : 64 + 16 * group + 16] = values[16:]
    return words, tile


@pytest.mark.parametrize(("first", "second"), [("fp4", "fp4"), ("fp8", "fp4"), ("fp8", "fp8")])
def test_scaled_matrix_products(first: str, second: str) -> None:
    (a, rows), (b, columns) = deep_operand(first, 1), deep_operand(second, 2)
    generator = np.random.default_rng(3)
    scales = [generator.integers(120, 134, (64, 4)).astype(np.uint8) for _ in range(2)]
    for tile, scale, byte in ((rows, scales[0], 2), (columns, scales[1], 1)):
        for lane in range(64):
            group = lane // 16
            tile[lane % 16, 32 * group : 32 * group + 32] *= 2.0 ** (int(scale[lane, byte]) - 127)
    names = {"fp4": "fp4_e2m1", "fp8": "fp8_e4m3"}
    formats = f"blgp = #rocdl<matrix_format {names[second]}>, cbsz = #rocdl<matrix_format {names[first]}>"
    attributes = f"<{{{formats}, opselA = 2 : i32, opselB = 1 : i32}}>"
    types = "(vector<8xi32>, vector<8xi32>, vector<4xf32>, i32, i32) -> vector<4xf32>"
    text = f'%r = "rocdl.mfma.scale.f32.16x16x128.f8f6f4"(%a, %b, %c, %d, %e) {attributes} : {types}'
    words = [scale.view(np.uint32)[:, 0] for scale in scales]
    found = run(text, a, b, np.zeros((64, 4), np.float32), *words)
    product = rows @ columns.T
    wanted = [[float(product[lane // 16 * 4 + at, lane % 16]) for at in range(4)] for lane in range(64)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


BY_PATTERN = re.compile(r"asm .*|rocdl\.(work(group|item)\.id|grid\.dim|cvt)\..*|llvm\.mlir\..*|.*mbcnt.*")
"""Operations whose tests put their names together."""


def test_every_operation_is_tested_here() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    named = {name for name in ALL if name in text or BY_PATTERN.fullmatch(name)}
    assert sorted(ALL - named - {*WITHOUT_EFFECT}) == []
