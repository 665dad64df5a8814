"""``preshuffle probe``: a table, JSON, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from preshuffle.api.cli import main
from preshuffle.layouts.probe import decide_with_recipe, golden_query, probe, reference_laid_out
from preshuffle.registry import Decision, Registry

pytestmark = pytest.mark.skipif(torch.version.hip is not None, reason="this torch has ROCm: AITER runs")
FAST = ("--tokens", "1,256", "--repeats", "1")


def test_both_layouts_side_by_side(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    assert main(["probe", "--runner", "reference", *FAST]) == 0
    out = capsys.readouterr().out
    assert "mxfp4.gui16" in out
    assert "mxfp4.sep16" in out
    assert "no kernel of AMD's" in out
    assert out.rstrip().endswith("pass")


def test_json_is_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--recipes", "generic", "--runner", "reference", *FAST, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["runner"] == "reference-laid-out"
    assert [(result["tokens"], result["activation_dtype"]) for result in report["results"]] == [
        (1, "bf16"),
        (256, "fp4x2"),
    ]
    assert {result["verdict"] for result in report["results"]} == {"pass"}


def test_a_function_of_ones_own_that_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "from preshuffle.layouts.probe.probe import reference_laid_out\n"
        "def halved(*arguments):\n    return reference_laid_out(*arguments) / 2\n"
    )
    (tmp_path / "kernel_of_mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["probe", "--runner", "kernel_of_mine:halved", "--recipes", "legacy", *FAST]) == 1
    assert "looks like: halved" in capsys.readouterr().out


def test_aiter_without_rocm_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--recipes", "legacy,generic"]) == 3
    output = capsys.readouterr()
    assert "AITER does not run here: this torch has no ROCm" in output.err
    assert (output.out, output.err.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--recipes", "modern"], "no recipe is called 'modern'"),
        (["--tokens", "0"], "--tokens '0'"),
        (["--tokens", "1,x"], "--tokens 'x'"),
        (["--repeats", "-1"], "--repeats"),
        (["--runner", "mine"], "unknown runner 'mine'"),
        (["--hidden-size", "31"], "hidden_size"),
        (["--arch", "gfx000"], "gfx000"),
        (["--quantization", "int8"], "no golden layer is called 'int8'"),
        (["--quantization", "bf16", "--activation", "Situv2"], "SiTUv2 is not recorded"),
        (["--quantization", "mxfp4-silu", "--activation", "Situv2"], "its formula is not recorded"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--runner", "reference", *arguments]) in (1, 2)
    assert complaint in capsys.readouterr().err


def test_what_is_no_tensor_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kernel_without_result.py").write_text("def nothing(*arguments):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["probe", "--runner", "kernel_without_result:nothing", "--tokens", "1", "--repeats", "0"]) == 1
    assert "the runner returned a NoneType, not a tensor" in capsys.readouterr().out


def test_without_names_a_layer_is_probed_with_what_it_can_choose(capsys: pytest.CaptureFixture[str]) -> None:
    fast = ("--tokens", "1", "--repeats", "0", "--json")
    assert main(["probe", "--runner", "reference", "--arch", "gfx1250", *fast]) == 0
    assert {result["recipe"] for result in json.loads(capsys.readouterr().out)["results"]} >= {"mxfp4.gurow16"}


def test_a_layer_of_another_quantization(capsys: pytest.CaptureFixture[str]) -> None:
    fast = ("--tokens", "4", "--repeats", "0", "--json")
    assert main(["probe", "--runner", "reference", "--quantization", "fp8-block", "--activation", "Gelu", *fast]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [result["recipe"] for result in report["results"]] == ["fp8-block.sep16"]
    assert report["query"]["activation"] == "Gelu"


OVERLAY = """
layouts:
  own8: {pattern: "e (nt n8) (kt k32) -> e nt kt n8 k32", unit: byte, k_multiple: 32}
kernel_families:
  own_stage1:
    stage: "1"
    funcs: [cktile_moe_stage1]
    archs: [gfx950]
    grammar: "^$"
    priority: 1000
    variants: [{when: {}, reads: {w13_weight: own8, w13_weight_scale: e8}}]
    evidence: ["https://example.org"]
recipes:
  own.mxfp4:
    title: MXFP4 in tiles of 8 rows
    suits: a kernel of one's own
    tags: [own]
    tensors:
      w13_weight: {layout: own8, pad: {rows: 256, k: 256}, fill: 0, dtype: fp4x2, order: GGUU, is_shuffled: true}
      w2_weight: {layout: sep16, pad: {rows: 256, k: 256}, fill: 0, dtype: fp4x2, is_shuffled: true}
      w13_weight_scale: {layout: e8, pad: {rows: 256, k: 8}, fill: 127, dtype: e8m0, order: GGUU}
      w2_weight_scale: {layout: e8, pad: {rows: 256, k: 8}, fill: 127, dtype: e8m0}
      w13_bias: {layout: plain, pad: {rows: 256}, fill: 0, dtype: fp32, order: GGUU}
      w2_bias: {layout: plain, pad: {rows: 256}, fill: 0, dtype: fp32, rank0_only: true}
    call: {gate_mode: separated, quant_type: per_1x32}
    requires: {arch: [mxfp4_mfma], activation: [Swiglu]}
    migration_safe: true
    supports_lora: false
    evidence: ["https://example.org"]
"""


@pytest.fixture
def own_book(tmp_path: Path) -> Path:
    """An overlay with a layout, a kernel family and a recipe of its own."""
    folder = tmp_path / "book"
    folder.mkdir()
    (folder / "own.yaml").write_text(OVERLAY)
    return folder


def test_a_recipe_of_an_overlay_is_probed_in_its_own_layout(own_book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["probe", "--book", str(own_book), "--recipes", "own.mxfp4", "--runner", "reference", *FAST]
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {(result["recipe"], result["verdict"]) for result in report["results"]} == {("own.mxfp4", "pass")}


def test_kernels_are_predicted_with_the_families_of_an_overlay(own_book: Path) -> None:
    registry, query = Registry.load([own_book]), golden_query()
    decision = decide_with_recipe(registry.book.recipes["own.mxfp4"], query, registry)
    first = decision.kernels[0].stage1
    assert first is not None
    assert (first.func, first.family, first.reads["w13_weight"]) == ("cktile_moe_stage1", "own_stage1", "own8")
    assert decision.tensors["w13_weight"].layout_line == registry.book.own_lines["own8"]


def test_bytes_read_as_an_overlays_layout_are_named(own_book: Path) -> None:
    registry, query = Registry.load([own_book]), golden_query()
    own = decide_with_recipe(registry.book.recipes["own.mxfp4"], query, registry).tensors["w13_weight"]

    def reads_own(
        tensors: dict[str, torch.Tensor],
        decision: Decision,
        x: torch.Tensor,
        topk_ids: torch.Tensor,
        topk_weights: torch.Tensor,
    ) -> torch.Tensor:
        wrong = decision.model_copy(update={"tensors": {**decision.tensors, "w13_weight": own}})
        return reference_laid_out(tensors, wrong, x, topk_ids, topk_weights)

    recipes = (registry.book.recipes["mxfp4.sep16"],)
    (result,) = probe(reads_own, recipes, query, registry=registry, tokens=(4,), repeats=0).results
    assert (result.verdict, result.looks_like) == ("fail", "w13 read as own8")
