"""Nearest kernel names."""

from __future__ import annotations

from pathlib import Path

import pytest

from preshuffle.layouts.derive import DeriveError, open_kernel
from preshuffle.layouts.derive.kernels.nearest_kernels import nearest

NAMES = [
    f"{stem}_bf16_t{tile}x{columns}x256{end}"
    for stem in ("flydsl_moe1_afp4_wfp4", "flydsl_moe1_afp8_wfp4", "flydsl_moe2_afp4_wfp4")
    for tile in (16, 32, 64)
    for columns in (64, 128)
    for end in ("", "_w3", "_gui", "_atomic_persist_with_a_name_that_is_very_long_indeed")
]


@pytest.mark.parametrize("name", NAMES[::5])
def test_a_letter_too_many_or_too_few_is_mended(name: str) -> None:
    for wrong in (f"{name}x", name[:-1], name.replace("_bf16", "_b16"), name.replace("flydsl", "flydls")):
        assert nearest(wrong, NAMES)[0] == name


def test_what_is_like_nothing_has_no_suggestion() -> None:
    assert nearest("Cijk_Ailk_Bljk", NAMES) == ()
    assert nearest("", NAMES) == ()
    assert nearest("flydsl_" * 1000, NAMES) == ()


@pytest.fixture
def aiter(tmp_path: Path) -> Path:
    for arch, stem in (("gfx942", "fmoe_stage1_a"), ("gfx950", "fmoe_stage1_b")):
        folder = tmp_path / "hsa" / arch / "fmoe_2stages"
        folder.mkdir(parents=True)
        (folder / f"{stem}.co").write_bytes(b"")
    table = tmp_path / "aiter" / "configs" / "tuned_fmoe.csv"
    table.parent.mkdir(parents=True)
    table.write_text("kernelName1\nflydsl_moe1_afp4_wfp4_bf16_t32x64x256_w3\n")
    return tmp_path


@pytest.mark.parametrize(
    ("kernel", "arch", "meant"),
    [
        ("fmoe_stage1_c", "gfx942", "; did you mean fmoe_stage1_a?"),
        ("fmoe_stage1_c", "gfx950", "; did you mean fmoe_stage1_b?"),
        ("fmoe_stage1_c", None, "; did you mean fmoe_stage1_a or fmoe_stage1_b?"),
        ("flydsl_moe4_afp4_wfp4_bf16_t32x64x256_w3", None, "; did you mean flydsl_moe1_afp4_wfp4_bf16_t32x64x256_w3?"),
        ("flydls_moe1_afp4_wfp4_bf16_t32x64x256_w3", None, "; did you mean flydsl_moe1_afp4_wfp4_bf16_t32x64x256_w3?"),
    ],
)
def test_names_come_from_the_aiter_that_was_given(aiter: Path, kernel: str, arch: str | None, meant: str) -> None:
    with pytest.raises(DeriveError) as caught:
        open_kernel(kernel, str(aiter), arch)
    assert str(caught.value).endswith(meant)
