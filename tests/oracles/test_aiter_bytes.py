"""Layouts equal AITER's bytes.

Compared with the wheel's functions and with recorded digests.
"""

import hashlib
import sys
from typing import Final

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from preshuffle.layouts import apply_layout, invert_layout
from preshuffle.registry import LayoutError
from support.aiter.aiter_wheel import AiterFunctions, aiter_modules
from support.aiter.recorded_layouts import NOT_LAYOUTS, RECORDED_FILE, WIDER, RecordedCall, recorded_calls
from support.tensors.mxfp4 import random_bytes

BYTE_DTYPES: Final = (torch.uint8, torch.float4_e2m1fn_x2, torch.float8_e4m3fn, torch.float8_e4m3fnuz)
SCALE_DTYPES: Final = (torch.uint8, torch.float8_e8m0fnu)

# [experts, rows, bytes of a row]; gpt-oss's w13 and w2 are padded to multiples of 256 values, here at TP 1 and TP 2
GPT_OSS: Final = [(2, 6144, 1536), (2, 3072, 1536), (2, 3072, 768)]
SMALL: Final = [(1, 32, 64), (3, 64, 256), (8, 96, 128), (2, 512, 448)]
UNPADDED_GPT_OSS: Final = (1, 5760, 1440)  # `sep16` only: the gate/up functions want whole groups of 64 bytes

SEP16: Final = [(shape, dtype) for shape in [*SMALL, *GPT_OSS, UNPADDED_GPT_OSS] for dtype in BYTE_DTYPES]
SEP16_BF16: Final = [(shape, torch.bfloat16) for shape in [*SMALL, *GPT_OSS]]  # AITER wants 32 elements, 64 bytes

small = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31)
experts = st.integers(1, 4)


def native(tensor: Tensor, layout: str, *, experts: int | None = None, fill: int | None = None) -> Tensor:
    return apply_layout(tensor, layout, experts=experts, fill=fill, backend="native")


def raw(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert torch.equal(raw(ours), raw(theirs))


def tensor_of(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Return random bytes viewed as a dtype.

    The last number of ``shape`` counts bytes.
    """
    return random_bytes(*shape, seed=seed).view(dtype)


class TestWeights:
    @pytest.mark.parametrize(("shape", "dtype"), [*SEP16, *SEP16_BF16], ids=str)
    def test_shuffle_weight_is_sep16(
        self, aiter: AiterFunctions, shape: tuple[int, int, int], dtype: torch.dtype
    ) -> None:
        weights = tensor_of(shape, dtype)
        assert_same(native(weights, "sep16"), aiter.shuffle_weight(weights))

    @pytest.mark.parametrize("dtype", [*BYTE_DTYPES, torch.bfloat16], ids=str)
    def test_shuffle_weight_of_32_rows_is_sep32(self, aiter: AiterFunctions, dtype: torch.dtype) -> None:
        weights = tensor_of((3, 96, 256), dtype)
        assert_same(native(weights, "sep32"), aiter.shuffle_weight(weights, (32, 16)))

    @pytest.mark.parametrize("dtype", BYTE_DTYPES, ids=str)
    @pytest.mark.parametrize(("gate_up", "layout"), [(True, "gui16"), (False, "sep16")])
    @pytest.mark.parametrize("shape", [*SMALL, *GPT_OSS], ids=str)
    def test_shuffle_weight_a16w4(
        self, aiter: AiterFunctions, shape: tuple[int, int, int], gate_up: bool, layout: str, dtype: torch.dtype
    ) -> None:
        weights = tensor_of(shape, dtype)
        assert_same(native(weights, layout), aiter.shuffle_weight_a16w4(weights, 16, gate_up))

    @pytest.mark.parametrize(("gate_up", "layout"), [(True, "gui16"), (False, "sep16")])
    def test_shuffle_weight_a16w4_counts_elements(self, aiter: AiterFunctions, gate_up: bool, layout: str) -> None:
        """On 2-byte elements AITER's gate/up function counts elements.

        ``gui16`` goes on counting bytes.
        """
        weights = tensor_of((2, 64, 256), torch.bfloat16)
        theirs = aiter.shuffle_weight_a16w4(weights, 16, gate_up)
        assert not torch.equal(raw(native(weights, layout)), raw(theirs))

    @pytest.mark.parametrize("layout", ["sep16", "gui16"])
    def test_flattened_experts_are_the_same_bytes(self, layout: str) -> None:
        weights = tensor_of((3, 64, 128), torch.uint8)
        flat = native(weights.view(192, 128), layout, experts=3)
        assert_same(flat, native(weights, layout).view(192, 128))

    @small
    @given(experts, st.integers(1, 6), st.integers(1, 6), seeds)
    def test_any_sep16(self, aiter: AiterFunctions, experts: int, row_tiles: int, k_tiles: int, seed: int) -> None:
        weights = tensor_of((experts, 16 * row_tiles, 32 * k_tiles), torch.uint8, seed)
        assert_same(native(weights, "sep16"), aiter.shuffle_weight(weights))
        assert_same(native(weights[0], "sep16"), aiter.shuffle_weight(weights[0]))

    @small
    @given(experts, st.integers(1, 4), st.integers(1, 4), seeds)
    def test_any_gui16(self, aiter: AiterFunctions, experts: int, row_tiles: int, k_tiles: int, seed: int) -> None:
        weights = tensor_of((experts, 32 * row_tiles, 64 * k_tiles), torch.uint8, seed)
        assert_same(native(weights, "gui16"), aiter.shuffle_weight_a16w4(weights, 16, True))


def test_gui16_klane_by_hand() -> None:
    """Words of the same number in four lanes lie together.

    Lanes hold 16 bytes.
    """
    weights = tensor_of((2, 96, 128), torch.uint8)
    split = weights.view(2, 2, 3, 16, 2, 4, 4, 4)  # expert, gate/up, tile, row, K tile, lane, word, byte
    theirs = split.permute(0, 2, 1, 4, 3, 6, 5, 7).reshape(2, 96, 128)
    assert_same(native(weights, "gui16_klane"), theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.uint8], ids=str)
def test_gurow_alternates_rows(dtype: torch.dtype) -> None:
    bias = tensor_of((3, 64, 4), dtype)
    assert_same(native(bias, "gurow"), torch.stack([bias[:, :32], bias[:, 32:]], dim=2).flatten(1, 2))


class TestScales:
    @pytest.mark.parametrize("dtype", SCALE_DTYPES, ids=str)
    @pytest.mark.parametrize(("gate_up", "layout"), [(True, "e8_gui16"), (False, "e8")])
    @pytest.mark.parametrize("shape", [(1, 32, 8), (4, 256, 16), (3, 96, 8), (2, 6144, 96), (2, 3072, 48)], ids=str)
    def test_shuffle_scale_a16w4(
        self, aiter: AiterFunctions, shape: tuple[int, int, int], gate_up: bool, layout: str, dtype: torch.dtype
    ) -> None:
        scales = tensor_of(shape, dtype)
        flat = scales.flatten(0, 1)
        theirs = aiter.shuffle_scale_a16w4(flat, shape[0], gate_up)
        assert_same(native(flat, layout, experts=shape[0]), theirs)
        assert_same(native(scales, layout), theirs.view(shape))

    @pytest.mark.parametrize("dtype", SCALE_DTYPES, ids=str)
    @pytest.mark.parametrize("shape", [(256, 8), (1024, 16), (512, 224), (2 * 6144, 96), (2 * 3072, 48)], ids=str)
    def test_e8m0_shuffle_is_e8(self, aiter: AiterFunctions, shape: tuple[int, int], dtype: torch.dtype) -> None:
        scales = tensor_of(shape, dtype)
        assert_same(native(scales, "e8"), aiter.e8m0_shuffle(scales))

    @pytest.mark.parametrize("shape", [(5760, 90), (288, 8), (256, 6), (100, 6), (1, 1)], ids=str)
    def test_padded_e8m0_shuffle(self, aiter: AiterFunctions, shape: tuple[int, int]) -> None:
        assert_padded_e8(aiter, random_bytes(*shape, seed=0))

    @small
    @given(st.integers(1, 300), st.integers(1, 20), seeds)
    def test_any_e8(self, aiter: AiterFunctions, rows: int, groups: int, seed: int) -> None:
        assert_padded_e8(aiter, random_bytes(rows, groups, seed=seed))

    @small
    @given(experts, st.integers(1, 4), st.integers(1, 4), seeds)
    def test_any_e8_gui16(self, aiter: AiterFunctions, experts: int, row_tiles: int, k_tiles: int, seed: int) -> None:
        scales = random_bytes(experts * 32 * row_tiles, 8 * k_tiles, seed=seed)
        theirs = aiter.shuffle_scale_a16w4(scales, experts, True)
        assert_same(native(scales, "e8_gui16", experts=experts), theirs)


def test_the_bare_aiter_is_gone_after_use() -> None:
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "aiter"}
    with aiter_modules():
        assert "aiter.ops.shuffle" in sys.modules
    assert {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "aiter"} == before


def assert_padded_e8(aiter: AiterFunctions, scales: Tensor) -> None:
    """Compare the bytes that AITER defines.

    It pads rows to 256, not 32, and leaves all padding uninitialised.

    Our rows are a prefix of AITER's memory, since a tile of 32 rows is contiguous. Where the real bytes lie is also
    asked of AITER, by a shuffle of ones on defined padding.
    """
    ours = native(scales, "e8", fill=127)
    theirs = aiter.e8m0_shuffle(scales).flatten()[: ours.numel()].view_as(ours)
    rows, groups = scales.shape
    ones = pad(torch.ones_like(scales), (0, -groups % 8, 0, -rows % 256))
    real = aiter.e8m0_shuffle(ones).flatten()[: ours.numel()].view_as(ours).bool()
    assert int(real.sum()) == scales.numel()
    assert torch.equal(native(torch.ones_like(scales), "e8", fill=0).bool(), real)
    assert torch.equal(ours[real], theirs[real])
    assert bool((ours[~real] == 127).all())


recorded = pytest.mark.skipif(not RECORDED_FILE.exists(), reason=f"{RECORDED_FILE} is not there")
CALLS: Final = recorded_calls()
DONE: Final = [call for call in CALLS if not call.fails and call.our_layout()]
FAILED: Final = [call for call in CALLS if call.fails and call.our_layout()]


@recorded
@pytest.mark.parametrize("call", DONE, ids=str)
def test_recorded_digest(call: RecordedCall) -> None:
    """Every recorded result is a known layout, padded or not.

    Of the book, or a line written down in the test.
    """
    assert call.digest == hashlib.sha256(raw(laid_out(call)).numpy().tobytes()).hexdigest()


@recorded
@pytest.mark.parametrize("call", FAILED, ids=str)
def test_what_aiter_refuses_we_refuse_too_or_know_why_not(call: RecordedCall) -> None:
    if call.line["id"] not in WIDER:
        with pytest.raises(LayoutError):
            laid_out(call)
        return
    tensor = call.laid_out_input()
    layout = call.our_layout()
    assert layout is not None
    assert raw(invert_layout(laid_out(call), layout, experts=count_of(call, tensor))).equal(raw(tensor))


@recorded
def test_no_recorded_call_is_left_out() -> None:
    others = {call.line["id"] for call in CALLS if not call.our_layout()}
    assert others == set(NOT_LAYOUTS)
    assert set(WIDER) <= {call.line["id"] for call in FAILED}
    assert len(DONE) + len(FAILED) > 190


def laid_out(call: RecordedCall) -> Tensor:
    tensor, layout = call.laid_out_input(), call.our_layout()
    assert layout is not None
    return apply_layout(tensor, layout, experts=count_of(call, tensor), backend="native")


def count_of(call: RecordedCall, tensor: Tensor) -> int | None:
    return call.experts if tensor.ndim == 2 else None
