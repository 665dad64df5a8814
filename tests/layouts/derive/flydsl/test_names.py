"""Names of FlyDSL kernels, files with MLIR, and what goes wrong before a kernel is compiled."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from preshuffle.layouts.derive import (
    AiterNotInstalledError,
    BuildOptions,
    DeriveError,
    IrFile,
    build_kernel,
    open_kernel,
)
from preshuffle.layouts.derive.flydsl import build
from preshuffle.layouts.derive.flydsl.families import FLYDSL_FAMILIES, NUMBERS, flydsl_name
from preshuffle.registry.kernels import packaged_families
from support.flydsl.operations import ALL
from support.flydsl.tiled_product import SOURCE

assert ALL
NAMES = {
    "flydsl_moe1_afp4_wfp4_bf16_t32x64x256": "flydsl_moe1_afp4_wfp4_bf16",
    "flydsl_moe1_afp4_wfp4_bf16_t32x128x256_w4_bnt0_xcd4": "flydsl_moe1_afp4_wfp4_bf16",
    "flydsl_moe1_afp4_wfp4_bf16_t32x64x256_w3_kb7_go": "flydsl_moe1_afp4_wfp4_split",
    "flydsl_moe1_afp8_wfp4_bf16_t32x128x256_w2_bnt0_gui_xcd4_fp8": "flydsl_moe1_afp8_wfp4_fp8",
    "flydsl_moe1_afp8_wfp8_f16_t64x128x256_gui": "flydsl_moe1_afp8_wfp8_f16",
    "flydsl_moe1_abf16_wfp4_bf16_t32x64x128_kw2": "flydsl_moe1_abf16_wfp4",
    "flydsl_moe1_abf16_wint4_bf16_t32x64x256_bnt0_kw4": "flydsl_moe1_abf16_wint4",
    "flydsl_moe2_afp8_wfp4_bf16_t64x128x256_reduce_bnt2_xcd4_persist_sbm32": "flydsl_moe2_afp8_wfp4_bf16",
    "flydsl_moe2_abf16_wint4_bf16_t32x128x256_atomic": "flydsl_moe2_abf16_wint4",
    "flydsl_moe2_layout_afp8_wfp8_bf16_t64x128x128_atomic_nt_sbm128": "flydsl_moe2_layout_afp8_wfp8",
    "flydsl_moe2_layout_afp4_wfp4_bf16_t64x256x128_reduce_sbm64_sp1601": "flydsl_moe2_layout_afp4_wfp4",
    "flydsl_mxmoe_g1_a4w4_64x256x256_xcd2": "flydsl_mxmoe_g1",
    "flydsl_mxmoe_g1_a4w4_16x256x256_f16in_nt": "flydsl_mxmoe_g1_bf16_input",
    "flydsl_mxmoe_g2_a4w4_32x256x256_atomic_nt": "flydsl_mxmoe_g2",
    "flydsl_mxmoe_g2_a4w4_128x256x256_xcd2": "flydsl_mxmoe_g2_rows",
    "flydsl_mxmoe_g2_a4w4_128x256x256_f4out": "flydsl_mxmoe_g2_fp4_rows",
}


@pytest.mark.parametrize(("name", "family"), NAMES.items())
def test_names_say_how_a_kernel_is_called(name: str, family: str) -> None:
    assert flydsl_name(name).kind.family.id == family
    assert packaged_families().parse_name(name) is not None  # the book knows the name, too


def test_names_state_tiles_and_steps() -> None:
    named = flydsl_name("flydsl_moe1_afp4_wfp4_bf16_t32x64x256_w3_kb7_go")
    assert (named.kind.tile_m, named.kind.tile_n, named.k_step) == (32, 64, 7 * 256)
    assert build.layer_sizes(named) == {"experts": 2, "inter_dim": 256, "model_dim": 1792, "top_k": 2}
    assert flydsl_name("flydsl_moe2_afp4_wfp4_bf16_t64x128x256_reduce_sbm32").kind.tile_m == 32
    assert flydsl_name("flydsl_moe2_afp4_wfp4_bf16_t64x128x256_reduce").reduces


def test_families_have_one_name_and_known_arguments() -> None:
    ids = [called.family.id for called in FLYDSL_FAMILIES]
    assert len(ids) == len(set(ids))
    buffers = set("out x w13 w2 x_scale w13_scale w2_scale sorted_ids tile_experts weights valid bias unused".split())
    for called in FLYDSL_FAMILIES:
        assert set(called.arguments) <= {*buffers, "out_scale", *NUMBERS}
        for name in NAMES:
            matching = [other.family.id for other in FLYDSL_FAMILIES if re.fullmatch(other.family.file_name, name)]
            assert len(matching) == 1


def test_a_name_of_no_family_lists_them() -> None:
    with pytest.raises(
        DeriveError, match="flydsl_moe3: how this kernel is called is not known here; known families: fl"
    ):
        open_kernel("flydsl_moe3")


def test_without_flydsl_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "PACKAGE", "flydsl_that_is_not_there")
    with pytest.raises(AiterNotInstalledError, match="is not installed: pip install flydsl_that_is_not_there"):
        open_kernel("flydsl_moe1_afp4_wfp4_bf16_t32x64x256")


def test_an_aiter_without_flydsl_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "PACKAGE", "json")
    with pytest.raises(DeriveError, match="has no aiter/ops/flydsl: this AITER is without FlyDSL"):
        build_kernel("flydsl_moe1_afp4_wfp4_bf16_t32x64x256", str(tmp_path), "gfx950")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with pytest.raises(DeriveError, match="has no aiter/ops/flydsl"):
        build_kernel("flydsl_moe1_afp4_wfp4_bf16_t32x64x256", str(tmp_path), "gfx950")


def test_a_kernel_that_does_not_compile_gives_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "PACKAGE", "json")
    (tmp_path / "aiter/ops/flydsl").mkdir(parents=True)
    with pytest.raises(DeriveError, match="AITER's FlyDSL did not compile it: ModuleNotFoundError"):
        build_kernel("flydsl_moe1_afp4_wfp4_bf16_t32x64x256", str(tmp_path), "gfx950")


def test_the_gate_mode_is_the_names_where_it_states_one() -> None:
    with pytest.raises(DeriveError, match="its name, not the call, says whether gate and up alternate"):
        build_kernel(
            "flydsl_moe1_afp4_wfp4_bf16_t32x64x256", "installed", "gfx950", BuildOptions(gate_mode="interleave")
        )


FILE = IrFile(
    kernel="flydsl_moe2_afp4_wfp4_bf16_t32x128x256_atomic",
    text=SOURCE.read_text(encoding="utf-8").partition("\n")[2],
    sha256="ab" * 32,
    experts=2,
    inter_dim=256,
    model_dim=512,
    top_k=2,
    flydsl="0.3.1",
)


def test_a_file_keeps_what_it_was_compiled_from(tmp_path: Path) -> None:
    path = tmp_path / "kernel.mlir"
    FILE.write(path)
    assert IrFile.read(path) == FILE
    kernel = open_kernel(str(path))
    assert (kernel.name, kernel.arch, kernel.sha256, kernel.compiler) == (
        FILE.kernel,
        "gfx950",
        "ab" * 32,
        "flydsl 0.3.1",
    )
    with pytest.raises(DeriveError, match="is a kernel of gfx950, not of gfx942"):
        open_kernel(str(path), arch="gfx942")
    replace(FILE, kernel="flydsl_moe9").write(path)
    with pytest.raises(DeriveError, match="flydsl_moe9: how this kernel is called"):
        open_kernel(str(path))


def test_a_kernel_without_machine_code_is_told(tmp_path: Path) -> None:
    path = tmp_path / "kernel.mlir"
    replace(FILE, machine_code=False).write(path)
    assert not open_kernel(str(path)).machine_code


def test_a_bare_dump_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "18_reconcile_unrealized_casts.mlir"
    path.write_text(FILE.text)
    with pytest.raises(DeriveError, match="does not say from which kernel and for which layer it was compiled"):
        open_kernel(str(path))
    path.write_text('// preshuffle: {"kernel": "x"}\n')
    with pytest.raises(DeriveError, match=r"facts about a kernel's MLIR: .*missing"):
        open_kernel(str(path))
