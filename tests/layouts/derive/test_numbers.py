"""Numbers of prebuilt kernels: right with the layout that the book claims, wrong with others."""

from __future__ import annotations

import pytest

from support.kernels import book_layouts, deriver_of, numbers_trial

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


BOTH_STAGES = [
    ("fmoe_bf16_pertokenMXfp4_g1u1_vs_silu_2tg_ps_32x256", "gfx950", 0.005),
    ("fmoe_bf16_blockscaleFp8_g1u1_novs_silu_1tg_32x256", "gfx942", 0.04),
    ("fmoe_bf16_pertokenInt8_g1u1_vs_silu_1tg_ps_32x256", "gfx942", 0.05),
    ("fmoe_bf16_noquantBf16_g1u0_atm_inlv_silu_1tg_32x512", "gfx950", 0.005),
    ("fmoe_bf16_pertokenMXfp4_g1u1_novs_gelu_2tg_32x256", "gfx950", 0.005),
    ("fmoe_bf16_pertokenFp8_g1u1_vs_tkw1_silu_1tg_32x256", "gfx942", 0.04),
    ("fmoe_bf16_pertokenInt8_g1u1_vs_multix_gelu_1tg_32x256", "gfx942", 0.05),
    ("fmoe_bf16_pertokenInt8_g1u0_vs_silu_1tg_32x256", "gfx950", 0.05),
]


@pytest.mark.parametrize(("stem", "arch", "close"), BOTH_STAGES)
def test_a_kernel_of_both_stages_is_right_with_all_four_layouts_only(stem: str, arch: str, close: float) -> None:
    deriver, layouts = deriver_of(stem, arch), book_layouts()
    trial = deriver.numbers()
    right = {role: deriver.usual_layout(role) for role in deriver.kind.family.roles}
    assert trial.relative_error(right) < close
    for role, usual in right.items():
        if len(trial.candidates(role)) > 1:
            other = "e8_gui16" if usual.id == "e8" else "sep32"
            assert trial.relative_error({**right, role: layouts[other]}) > FAR
