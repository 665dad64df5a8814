"""AITER's FlyDSL kernels, compiled here: needs flydsl, and PRESHUFFLE_AITER_TREE with a checkout that has them."""

from __future__ import annotations

import re
from functools import cache

import pytest

from preshuffle.layouts.derive import BuildOptions, KernelDeriver, open_kernel
from preshuffle.layouts.derive.flydsl.families import flydsl_name
from preshuffle.layouts.derive.flydsl.kernel import FlydslKernel
from preshuffle.registry import Registry
from support.aiter.trees import aiter_tree
from support.flydsl.operations import ALL

assert ALL
FIRST = "flydsl_moe2_afp4_wfp4_bf16_t32x128x256_atomic"
KERNELS: list[tuple[str, str, BuildOptions, float]] = [
    *(
        (f"flydsl_moe1_{name}", "gfx950", BuildOptions(), limit)
        for name, limit in (
            ("afp4_wfp4_bf16_t32x64x256", 0.003),
            ("afp8_wfp4_bf16_t32x64x256_gui", 0.003),
            ("afp8_wfp8_bf16_t32x128x256_gui", 0.003),
            ("abf16_wfp4_bf16_t32x64x256", 0.003),
            ("abf16_wint4_bf16_t32x64x256", 0.003),
            ("afp4_wfp4_bf16_t32x64x256_w3_fp4", 0.2),
            ("afp8_wfp4_bf16_t32x64x256_w3_gui_fp8", 0.04),
            ("afp8_wfp8_bf16_t32x128x256_w3_gui_fp8", 0.04),
            ("afp4_wfp4_bf16_t32x64x256_w3_kb2", 0.006),
            ("afp4_wfp4_bf16_t32x64x256_w3_kb2_go", 0.006),
            ("afp4_wfp4_bf16_t32x64x256_w3_kb4_xcd4_fp4", 0.006),
            ("afp8_wfp4_bf16_t16x128x256_gui", 0.003),
        )
    ),
    ("flydsl_moe1_afp8_wfp4_bf16_t32x64x256_gui", "gfx950", BuildOptions(activation="swiglu", bias=True), 0.003),
    ("flydsl_moe1_afp8_wfp4_bf16_t32x64x256_gui", "gfx950", BuildOptions(activation="situv2"), 0.003),
    ("flydsl_moe1_abf16_wfp4_bf16_t32x64x256", "gfx950", BuildOptions(activation="situv2"), 0.003),
    ("flydsl_moe1_abf16_wfp4_bf16_t32x64x256", "gfx942", BuildOptions(), 0.003),
    ("flydsl_moe1_abf16_wint4_bf16_t32x64x256", "gfx942", BuildOptions(), 0.003),
    ("flydsl_moe2_abf16_wint4_bf16_t32x128x256_atomic", "gfx942", BuildOptions(), 0.004),
    *(
        (f"flydsl_moe2_{name}", "gfx950", BuildOptions(), 0.004)
        for name in (
            "afp4_wfp4_bf16_t32x128x256_reduce",
            "afp8_wfp4_bf16_t32x128x256_atomic",
            "afp8_wfp8_bf16_t32x128x256_atomic",
            "abf16_wfp4_bf16_t32x128x256_atomic",
            "abf16_wint4_bf16_t32x128x256_atomic",
            "afp8_wfp4_bf16_t64x128x256_atomic_sbm128",
            "layout_afp4_wfp4_bf16_t32x128x256_atomic_nt_sbm32",
            "layout_afp4_wfp4_bf16_t64x128x256_reduce_persist_sbm64",
            "layout_afp8_wfp8_bf16_t64x128x128_atomic_sbm128",
            "layout_afp8_wfp4_bf16_t64x256x128_reduce_sbm64_sp3201",
        )
    ),
    ("flydsl_mxmoe_g1_a4w4_32x256x256", "gfx950", BuildOptions(), 0.2),
    ("flydsl_mxmoe_g1_a4w4_32x256x256", "gfx950", BuildOptions(gate_mode="interleave"), 0.2),
    ("flydsl_mxmoe_g1_a4w4_16x256x256_f16in_nt", "gfx950", BuildOptions(), 0.3),
    ("flydsl_mxmoe_g2_a4w4_32x256x256_atomic", "gfx950", BuildOptions(), 0.004),
    ("flydsl_mxmoe_g2_a4w4_32x256x256", "gfx950", BuildOptions(), 0.004),
]
"""Kernels of every family, and the relative L2 that they reach: those that quantize their output are further off."""


@cache
def kernel(name: str, arch: str, options: BuildOptions) -> FlydslKernel:
    pytest.importorskip("flydsl", reason="flydsl is not installed: pip install flydsl")
    found = open_kernel(name, str(aiter_tree()), arch, options)
    assert isinstance(found, FlydslKernel)
    return found


def derive_in_full(name: str, arch: str, options: BuildOptions, limit: float) -> None:
    result = KernelDeriver(kernel(name, arch, options), Registry.load().book).derive()
    assert result.not_modelled == {}
    assert len(result.roles) == 2
    for role in result.roles.values():
        assert (role.verdict, role.conflicts, role.derived) == ("agrees", 0, role.bytes)
        assert role.layout is not None
        tried = dict(role.tried)
        assert tried.pop(role.layout) < limit
        assert min(tried.values()) > 0.6


def test_names_of_aiters_tables_can_be_called() -> None:
    tables = "".join(path.read_text(encoding="utf-8") for path in (aiter_tree() / "aiter/configs").rglob("*.csv"))
    names = set(re.findall(r"flydsl_(?:moe[12]|mxmoe)_\w+", tables))
    assert len(names) > 100
    for name in names:
        flydsl_name(name)


def test_a_kernel_is_derived_in_full() -> None:
    derive_in_full(FIRST, "gfx950", BuildOptions(), 0.004)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "hidden_pad", "intermediate_pad"),
    [
        ("flydsl_moe1_afp4_wfp4_bf16_t32x64x256", 128, 192),
        ("flydsl_moe1_afp8_wfp4_bf16_t32x64x256_gui", 128, 96),
        ("flydsl_moe2_afp8_wfp4_bf16_t32x128x256_atomic", 64, 96),
    ],
)
def test_padded_layers_are_right_with_the_books_layouts_alone(
    name: str, hidden_pad: int, intermediate_pad: int
) -> None:
    options = BuildOptions(hidden_pad=hidden_pad, intermediate_pad=intermediate_pad)
    result = KernelDeriver(kernel(name, "gfx950", options), Registry.load().book).derive()
    for role in result.roles.values():
        assert (role.how, role.verdict, role.derived, role.pattern) == ("numbers", "agrees", 0, None)
        assert role.layout is not None
        assert role.tried[role.layout] < 0.003


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["fp4", "int4"])
def test_stage_2_on_bf16_has_no_machine_code_for_gfx942(weights: str) -> None:
    """LLVM 'cannot select' the addition of two bf16 to a buffer, which gfx942 lacks; seen in FlyDSL 0.3.1 and 0.5.0."""
    name = f"flydsl_moe2_abf16_w{weights}_bf16_t32x128x256_atomic"
    derive_in_full(name, "gfx942", BuildOptions(), 0.004)
    assert not kernel(name, "gfx942", BuildOptions()).machine_code
    assert kernel(name, "gfx950", BuildOptions()).machine_code


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arch", "options", "limit"), KERNELS)
def test_kernels_of_every_family_are_derived_in_full(name: str, arch: str, options: BuildOptions, limit: float) -> None:
    derive_in_full(name, arch, options, limit)
