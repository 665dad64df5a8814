"""Numbers of prebuilt kernels: right with the layout that the book claims, wrong with others."""

from __future__ import annotations

import pytest

from support.kernels import book_layouts, numbers_trial

CLOSE = {"bf16": 0.003, "fp8_block": 0.04}
FAR = 0.5

KERNELS = [
    ("fmoe_stage1_bf16_pertokenFp8_g1u1_64x128_2tg_pf2", "gfx942"),
    ("fmoe_stage1_bf16_pertokenFp8_g1u1_32x128_3tg_pf2", "gfx950"),
    ("fmoe_stage1_bf16_pertokenFp8_doweight_g1u1_16x128_4tg_pf3", "gfx950"),
    ("fmoe_stage1_bf16_pertokenInt8_g1u1_64x128_2tg_pf3", "gfx942"),
    ("fmoe_stage1_bf16_pertokenInt8_g1u1_16x128_4tg_pf2", "gfx950"),
    ("fmoe_stage1_bf16_pertokenFp8_blockscale_g1u1_64x128_2tg_pf2", "gfx942"),
    ("fmoe_stage1_bf16_pertokenFp8_blockscale_g1u1_16x128_4tg_pf2", "gfx950"),
]


@pytest.mark.parametrize(("stem", "arch"), KERNELS)
def test_a_kernel_is_right_with_the_claimed_layout_only(stem: str, arch: str) -> None:
    trial, layouts = numbers_trial(stem, arch), book_layouts()
    scale = {"w13_weight_scale": layouts["plain"]}
    right = trial.relative_error({"w13_weight": layouts["sep16"], **scale})
    wrong = trial.relative_error({"w13_weight": layouts["gui16"], **scale})
    assert right < CLOSE[trial.run.kind.family.output]
    assert wrong > FAR
