"""``preshuffle derive``: a table, JSON, errors of one line, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from preshuffle.api.cli import main
from preshuffle.registry import Registry
from support.flydsl.tiled_product import SOURCE
from support.kernels import kernel_path

STEM = "fmoe_stage1_bf16_pertokenInt8_g1u1_16x128_4tg_pf2"
KERNEL = f"_ZN5aiter{len(STEM)}{STEM}E"


@pytest.fixture(autouse=True)
def _wheel() -> None:
    kernel_path(STEM, "gfx950")


def test_a_table_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["derive", KERNEL, "--arch", "gfx950"]) == 0
    out = capsys.readouterr().out
    assert "262,144 of 262,144" in out
    assert 'pattern: "e (nt n16) (kt k16) -> e nt kt n16 k16"' in out
    assert "relative L2: sep16 0.001" in out
    assert "the first rows of expert 0; each number counts runs of 16 in memory" in out
    picture = out[out.index("row \\ K") :].splitlines()
    assert picture[0].split()[:7] == ["row", "\\", "K", "0", "16", "32", "48"]
    assert ["0", "0", "16", "32", "48"] in [line.split()[:5] for line in picture[:4]]


def test_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["derive", STEM, "--arch", "gfx950", "--role", "w13_weight", "--no-numbers", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["kernel"], result["arch"], result["not_modelled"]) == (KERNEL, "gfx950", {})
    role = result["roles"]["w13_weight"]
    assert {"layout", "pattern", "bytes", "derived", "conflicts", "tried"} <= role.keys()
    assert (role["layout"], role["derived"], role["conflicts"]) == ("sep16", 262144, 0)


def test_a_book_that_is_wrong_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family = Registry.load().book.entries["kernel_families"]["asm_stage1"].model_dump(mode="json", exclude={"id"})
    for variant in family["variants"]:
        if variant["reads"]:
            variant["reads"]["w13_weight"] = "gui16"
    overlay = tmp_path / "kernel_families.yaml"
    overlay.write_text(yaml.safe_dump({"kernel_families": {"asm_stage1": family}}))
    arguments = ["derive", STEM, "--arch", "gfx942", "--role", "w13_weight", "--no-numbers", "--book", str(overlay)]
    assert main(arguments) == 1
    assert "disagrees" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([STEM], "is ambiguous, name the GPU (--arch)"),
        (["fmoe_none", "--arch", "gfx942"], "has no fmoe_none.co for gfx942"),
        ([STEM, "--aiter", "/nowhere"], "/nowhere has none of aiter_meta/hsa, hsa"),
        ([STEM.replace("_bf16_", "_bf61_"), "--arch", "gfx942"], f"; did you mean {STEM} or "),
        ([STEM, "--arch", "gfx1250"], "gfx1250: neither the decoder (tinygrad) nor the emulator knows"),
        ([STEM, "--arch", "gfx492"], "gfx492: neither the decoder"),
        (["flydsl_moe3_afp4_wfp4_bf16_t32x64x256"], "how this kernel is called is not known here"),
        (["fmoe_f16", "--arch", "gfx942"], "fmoe_f16: how this kernel is called is not known here"),
        ([STEM, "--arch", "gfx942", "--role", "w2"], "has no role w2; valid: w13_weight"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["derive", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_files_that_are_no_kernel_of_the_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / f"{STEM}.co"
    cut.write_bytes(kernel_path(STEM, "gfx942").read_bytes()[:3000])
    assert main(["derive", str(cut)]) == 2
    assert "is cut off or damaged" in capsys.readouterr().err
    assert main(["derive", str(kernel_path(STEM, "gfx942")), "--arch", "gfx950"]) == 2
    assert "is a kernel of gfx942, not of gfx950" in capsys.readouterr().err


def test_files_with_mlir_and_what_is_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = tmp_path / "kernel.mlir"
    bare.write_text(SOURCE.read_text(encoding="utf-8"))
    assert main(["derive", str(bare)]) == 2
    assert "does not say from which kernel and for which layer it was compiled" in capsys.readouterr().err
    facts = {"kernel": "flydsl_moe9", "sha256": "", "experts": 1, "inter_dim": 1, "model_dim": 1, "top_k": 1}
    bare.write_text(f"// preshuffle: {json.dumps(facts | {'flydsl': '0.3.1'})}\n")
    assert main(["derive", str(bare)]) == 2
    assert "flydsl_moe9: how this kernel is called is not known here" in capsys.readouterr().err
    assert main(["derive", STEM, "--arch", "gfx942", "--save", str(tmp_path / "saved.mlir")]) == 2
    assert "--save writes MLIR, and" in capsys.readouterr().err


def test_without_amds_wheel_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from preshuffle.registry.kernels.tables import installed

    monkeypatch.setattr(installed, "DISTRIBUTION", "amd-aiter-that-is-not-there")
    monkeypatch.setattr(installed, "_package_folders", list)
    assert main(["derive", STEM]) == 3
    assert "amd-aiter-that-is-not-there is not installed: pip install --no-deps" in capsys.readouterr().err
