"""AITER's own Triton kernel reads the layouts.

It multiplies with them, and with wrong bytes it fails.

`_gemm_afp4_wfp4_kernel_preshuffled_weight_scales` reads weights in `sep16` and scales in `e8`. Its product is compared
with a float64 product of the untouched plain codes. A wrong layout raises nothing and changes no shape, so each test
with wrong bytes asks for a product that is far off.
"""

from dataclasses import dataclass
from typing import Final

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from preshuffle.layouts import apply_layout
from support.aiter.afp4_gemm import Gemm, gemm_afp4_wfp4_preshuffled, run_gemms
from support.aiter.aiter_wheel import AiterFunctions
from support.tensors.mxfp4 import Mxfp4, random_bytes, random_mxfp4, relative_error

EXACT: Final = 1e-6  # float32 accumulation over K; every product of two codes and two scales is exact
WRONG: Final = 0.5  # unrelated bytes give about sqrt(2)
M: Final = 32


def lay_out(tensor: Tensor, layout: str, *, fill: int | None = None) -> Tensor:
    return apply_layout(tensor, layout, fill=fill, backend="native")


def product(x: Mxfp4, w: Mxfp4) -> Tensor:
    return x.dequantize() @ w.dequantize().T


@dataclass(frozen=True)
class Run:
    """One problem's exact product, and the kernel's for every choice of bytes."""

    expected: Tensor
    actual: dict[str, Tensor]

    def error(self, case: str) -> float:
        return relative_error(self.actual[case], self.expected)


@pytest.fixture(scope="module", params=[(256, 512), (512, 3072)], ids=["256x512", "512x3072"])
def run(request: pytest.FixtureRequest) -> Run:
    n, k = request.param
    x, w = random_mxfp4(M, k, seed=1), random_mxfp4(n, k, seed=3)
    weights, scales = lay_out(w.codes, "sep16"), lay_out(w.scales, "e8")
    cases = {
        "right": (weights, scales),
        "raw weights": (w.codes, scales),
        "raw scales": (weights, w.scales),
        "gui16 weights": (lay_out(w.codes, "gui16"), scales),
        "gui16 both": (lay_out(w.codes, "gui16"), lay_out(w.scales, "e8_gui16")),
    }
    products = run_gemms([Gemm(x.codes, codes, x.scales, e8m0) for codes, e8m0 in cases.values()])
    return Run(product(x, w), dict(zip(cases, products, strict=True)))


def test_right_bytes_give_the_exact_product(run: Run) -> None:
    assert run.error("right") < EXACT


@pytest.mark.parametrize("case", ["raw weights", "raw scales", "gui16 weights"])
def test_wrong_bytes_give_garbage(run: Run, case: str) -> None:
    assert run.error(case) > WRONG


def test_gui16_is_sep16_of_alternating_groups_of_16_rows(run: Run) -> None:
    """``gui16`` equals ``sep16`` of rows in alternating groups of 16.

    Gate rows 0..15, up rows 0..15, gate 16..31, and so on; likewise ``e8_gui16``.
    """
    n = run.expected.shape[1]
    order = torch.arange(n).view(2, n // 32, 16).transpose(0, 1).flatten()
    assert relative_error(run.actual["gui16 both"], run.expected[:, order]) < EXACT
    assert run.error("gui16 both") > WRONG


def test_padded_gpt_oss_expert() -> None:
    """A w2 of gpt-oss, 2880 x 2880 padded to 3072 x 3072.

    Weights are padded with zeros, scales with any defined fill.
    """
    size, padded = 2880, 3072
    w, x = random_mxfp4(size, size, seed=5), random_mxfp4(M, padded, seed=7)
    weights = lay_out(pad(w.codes, (0, (padded - size) // 2, 0, padded - size)), "sep16")
    scales = lay_out(pad(w.scales, (0, 0, 0, padded - size), value=127), "e8", fill=127)
    assert scales.shape == (padded, padded // 32)
    actual = gemm_afp4_wfp4_preshuffled(x.codes, weights, x.scales, scales)
    assert relative_error(actual[:, :size], x.dequantize()[:, :size] @ w.dequantize().T) < EXACT
    assert not actual[:, size:].any()


def test_scales_shuffled_with_experts_as_rows_are_garbage(aiter: AiterFunctions) -> None:
    """The wrong view ``scale.view(E, -1)`` gives garbage.

    ``scale.view(E * N, -1)`` is what ``e8m0_shuffle`` means.

    With 32 experts, one tile of rows, the shuffle's padding lies behind all bytes that the kernel reads: none is
    uninitialised, they are only in the wrong place.
    """
    experts, n, k = 32, 64, 512
    x, w = random_mxfp4(M, k, seed=9), random_mxfp4(experts * n, k, seed=11)
    weights = lay_out(w.codes.view(experts, n, -1), "sep16").view(experts * n, -1)
    per_expert = w.scales.view(experts, n, -1)
    right = lay_out(per_expert, "e8").view(experts * n, -1)
    wrong = aiter.e8m0_shuffle(per_expert.reshape(experts, -1)).flatten()[: right.numel()].view_as(right)
    assert torch.equal(right, aiter.e8m0_shuffle(w.scales))
    assert torch.equal(wrong.flatten().sort().values, right.flatten().sort().values)
    assert not torch.equal(wrong, right)
    good, bad = run_gemms([Gemm(x.codes, weights, x.scales, scales) for scales in (right, wrong)])
    expected = product(x, w)
    assert relative_error(good, expected) < EXACT
    assert relative_error(bad, expected) > WRONG


def test_reference_decodes_as_aiter_does(aiter: AiterFunctions) -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(1, 256)
    scales = random_bytes(1, 16, seed=13, low=1, high=255)
    values = aiter.mxfp4_to_f32(codes) * aiter.e8m0_to_f32(scales).repeat_interleave(32, dim=-1)
    assert torch.equal(Mxfp4(codes, scales).dequantize().float(), values)
