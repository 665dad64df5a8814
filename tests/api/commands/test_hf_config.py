"""--hf-config and --hf-layer: a checkpoint's own configuration on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.cli import main
from support.book.configurations import PUBLISHED
from support.book.quantizations import BLOCK, MODEL


def config(folder: Path, value: dict[str, Any]) -> str:
    (folder / "config.json").write_text(json.dumps(value))
    return str(folder)


def test_a_configuration_is_resolved_with_its_shared_expert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = config(tmp_path, PUBLISHED["deepseek-r1"][0])
    arguments = ["--hf-config", folder, "--arch", "gfx942", "--engine", "atom", "--tp", "8", "--json"]
    assert main(["resolve", *arguments]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["tensors"]["w13_weight"]["logical_shape"] == [257, 512, 7168]
    assert answer["tensors"]["w13_weight_scale"]["logical_shape"] == [257, 4, 56]


DIFFERENT = {**MODEL, "quantization_config": {**BLOCK, "modules_to_not_convert": ["model.layers.0.mlp.experts"]}}


def test_layers_that_differ_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["resolve", "--hf-config", config(tmp_path, DIFFERENT), "--arch", "gfx942", "--json"]
    assert main(arguments) == 2
    assert "experts differ between layers (layers 0: not quantized; layers 1-3: fp8" in capsys.readouterr().err
    recipes = {}
    for layer in ("0", "1"):
        assert main([*arguments, "--hf-layer", layer]) == 0
        recipes[layer] = json.loads(capsys.readouterr().out)["call"]["quant_type"]
    assert recipes == {"0": "No", "1": "per_1x128"}


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--hf-layer", "first"], "--hf-layer 'first'; valid: a layer's number, counted from 0"),
        (["--hf-layer", "9"], "layer: layer 9 has no experts; valid: 0-3"),
    ],
)
def test_a_layer_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], text: str) -> None:
    assert main(["resolve", "--hf-config", config(tmp_path, DIFFERENT), "--arch", "gfx942", *more]) == 2
    assert text in capsys.readouterr().err


def test_a_layer_needs_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", "openai/gpt-oss-120b", "--arch", "gfx950"]
    assert main(["resolve", *model, "--hf-layer", "1"]) == 2
    assert "--hf-layer needs --hf-config" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["layer", "registry", "config", "book"])
def test_a_file_with_an_odd_field_is_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    query = tmp_path / "query.json"
    query.write_text(json.dumps({"arch": "gfx942", name: 1}))
    assert main(["resolve", str(query), "--hf-config", config(tmp_path, MODEL)]) == 2
    assert f"{name}: unknown field" in capsys.readouterr().err


def test_an_unknown_model_type_goes_on_with_the_lines_that_the_error_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--hf-config", config(tmp_path, {**MODEL, "model_type": "acme_moe"}), "--arch", "gfx950", "--json"]
    assert main(["resolve", *given]) == 2
    first, *lines = capsys.readouterr().err.splitlines()
    assert first.startswith(f"preshuffle: {given[1]}: model_type: unknown 'acme_moe'")
    overlay = tmp_path / "pasted.yaml"
    overlay.write_text("\n".join(lines))
    assert main(["resolve", *given, "--book", str(overlay)]) == 0


def test_a_dense_model_is_no_unknown_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    assert main(["resolve", "--hf-config", config(tmp_path, dense), "--arch", "gfx950"]) == 2
    assert "model_type: no experts here: 'llama' is a dense model" in capsys.readouterr().err


def test_keys_that_do_not_matter_are_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = {**BLOCK, "colour": "red"}
    folder = config(tmp_path, {**MODEL, "quantization_config": section})
    assert main(["resolve", "--hf-config", folder, "--arch", "gfx950", "--json"]) == 0
    assert capsys.readouterr().err == "preshuffle: note: quantization_config.colour is not read here\n"
