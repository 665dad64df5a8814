"""``preshuffle registry new``: every skeleton loads as it is, and does what its comments say."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from preshuffle.api.cli import main
from preshuffle.api.commands.registry.skeletons import SKELETONS
from preshuffle.registry import Query, Registry

SECTION = {
    "model": "models",
    "recipe": "recipes",
    "rule": "rules",
    "layout": "layouts",
    "kernel-family": "kernel_families",
}
OTHER_IDS = {
    "model": "me/other-2",
    "recipe": "me.other",
    "rule": "me.rule",
    "layout": "mine32",
    "kernel-family": "my_moe1",
}
GPT_OSS = {"model": "openai/gpt-oss-120b", "arch": "gfx950", "activation_dtype": "fp4x2"}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRESHUFFLE_BOOK", raising=False)


def written(kind: str, *options: str) -> str:
    assert main(["registry", "new", kind, *options, "-o", f"{kind}.yaml"]) == 0
    return Path(f"{kind}.yaml").read_text()


def with_options(kind: str) -> str:
    """Return a skeleton with its optional lines, edited as its comments say."""
    return re.sub(r"^( *)#- ", r"\1", written(kind), flags=re.MULTILINE)


@pytest.mark.parametrize("kind", SKELETONS)
def test_a_skeleton_loads_as_it_is_and_its_commands_run(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = written(kind)
    assert SKELETONS[kind] in Registry.load([f"{kind}.yaml"]).book.entries[SECTION[kind]]
    commands = re.findall(r"^#  +preshuffle (.*)$", text, re.MULTILINE)
    assert len(commands) >= 2
    for command in commands:
        assert main(shlex.split(command)) == 0, capsys.readouterr()
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", SKELETONS)
def test_a_skeleton_loads_with_its_optional_lines(kind: str) -> None:
    text = with_options(kind)
    assert "#- " not in text.replace('"#- "', "")
    Path("all.yaml").write_text(text)
    assert SKELETONS[kind] in Registry.load(["all.yaml"]).book.entries[SECTION[kind]]


@pytest.mark.parametrize("kind", SKELETONS)
def test_an_id_is_put_everywhere(kind: str) -> None:
    text = written(kind, OTHER_IDS[kind])
    assert re.search(rf"{re.escape(SKELETONS[kind])}(?![\w.])", text) is None
    assert OTHER_IDS[kind] in Registry.load([f"{kind}.yaml"]).book.entries[SECTION[kind]]


def test_a_model_is_answered_by_the_general_rules() -> None:
    written("model", "me/other-2")
    decision = Registry.load(["model.yaml"]).resolve(Query(model="me/other-2", arch="gfx950"))
    assert decision.recipe == "mxfp4.sep16.silu"
    assert not [finding for finding in decision.findings if finding.severity == "error"]


def test_a_recipe_and_a_rule_win_for_their_deployments() -> None:
    written("recipe")
    written("rule")
    registry = Registry.load(["recipe.yaml", "rule.yaml"])
    for deployment, rule, recipe in (
        ("acme-1", "acme.gpt-oss", "acme.mxfp4"),
        ("canary-7", "acme.canary", "mxfp4.sep16"),
    ):
        decision = registry.resolve(Query.parse({**GPT_OSS, "deployment": deployment}))
        assert (decision.rule, decision.recipe, decision.findings) == (rule, recipe, ())


def test_layout_recipe_and_kernels_fit_together() -> None:
    """What the comments of the three say: name the layout in the recipe and the family, the function in the call."""
    written("layout")
    recipe = written("recipe").replace("quant_type: per_1x32}", "quant_type: per_1x32, function: acme_fused_moe}")
    kernels = written("kernel-family")
    Path("recipe.yaml").write_text(recipe.replace("_weight: {layout: sep16", "_weight: {layout: acme64"))
    Path("kernel-family.yaml").write_text(kernels.replace("_weight: sep16", "_weight: acme64"))
    registry = Registry.load(["layout.yaml", "recipe.yaml", "kernel-family.yaml"])
    decision = registry.resolve(Query.parse({**GPT_OSS, "deployment": "acme-1"}))
    assert (decision.tensors["w13_weight"].layout, decision.findings) == ("acme64", ())
    Path("kernel-family.yaml").write_text(kernels)
    registry = Registry.load(["layout.yaml", "recipe.yaml", "kernel-family.yaml"])
    findings = registry.resolve(Query.parse({**GPT_OSS, "deployment": "acme-1"})).findings
    assert {finding.code for finding in findings} == {"layout_mismatch"}


def test_nothing_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.yaml").write_text("mine")
    assert main(["registry", "new", "model", "-o", "model.yaml"]) == 2
    assert "model.yaml exists" in capsys.readouterr().err
    assert Path("model.yaml").read_text() == "mine"
    assert main(["registry", "new", "model", "-o", "none/model.yaml"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_wrong_words_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", "new", "modle"]) == 2
    assert "did you mean model?" in capsys.readouterr().err
    assert main(["registry", "new", "model", "a: b"]) == 2
    assert "id 'a: b'" in capsys.readouterr().err
    assert main(["registry", "new", "model", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"].startswith("# A model")
