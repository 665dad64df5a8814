"""``preshuffle explain``: every rule, in order, in three forms."""

from __future__ import annotations

import pytest

from preshuffle.api.cli import main
from preshuffle.registry import Explanation, Query, Registry

MODEL = "openai/gpt-oss-120b"
OPTIONS = ["--model", MODEL, "--arch", "gfx950", "--activation-dtype", "fp4x2"]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESHUFFLE_BOOK", "PRESHUFFLE_TABLES", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def expected() -> Explanation:
    return Registry.default().explain(Query(model=MODEL, arch="gfx950", activation_dtype="fp4x2"))


def test_json_is_the_explanation_of_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *OPTIONS, "--json"]) == 0
    assert Explanation.model_validate_json(capsys.readouterr().out) == expected()


@pytest.mark.parametrize(("width", "whole"), [(80, False), (200, False), (200, True)])
def test_the_table_has_the_rules_in_question_in_order(
    width: int, whole: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["explain", *OPTIONS, *["--all"] * whole]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    recipes = [line.split()[1] for line in out.splitlines() if line.startswith("  → ")]
    shown = expected().rules if whole else expected().in_question
    assert recipes == [(rule.recipe or "nothing works").split()[0] for rule in shown]
    assert "✗ activation_dtype = bf16; found fp4x2" in " ".join(out.split())
    assert ("not relevant: " in out) is not whole


@pytest.mark.parametrize("whole", [False, True])
def test_the_ticket_is_plain_and_says_what_it_leaves_out(whole: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *OPTIONS, "--text", *["--all"] * whole]) == 0
    out = capsys.readouterr().out
    explanation = expected()
    shown = explanation.rules if whole else explanation.in_question
    assert out.startswith("preshuffle 0.")
    assert explanation.registry_digest in out
    assert '"activation_dtype": "fp4x2"' in out
    assert explanation.rules[0].why in out
    for number, rule in enumerate(shown, 1):
        assert f"{number}. {rule.rule} -> {rule.recipe or 'nothing works'}: {rule.outcome}" in out
        for name, wanted in rule.required.items():
            assert f"{name.removeprefix('env.')} = {wanted}; found" in out if name in rule.missed else True
            assert f"{name}={wanted}" in out if name not in rule.missed else True
    hidden = len(explanation.rules) - len(shown)
    counts = [int(word) for word in out.partition("not relevant: ")[2].split() if word.isdigit()]
    assert sum(counts) == hidden
    assert whole or len(out.splitlines()) < 80, "a ticket is read by people"


def test_it_answers_where_no_rule_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--model", "a/b", "--arch", "gfx950"]) == 1
    out = capsys.readouterr().out
    assert "no rule was chosen" in out
    assert main(["explain", "--model", "a/b", "--arch", "gfx950", "--text"]) == 1
    assert "chosen: none" in capsys.readouterr().out


def test_an_arch_that_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--model", MODEL, "--arch", "gfx906"]) == 1
    assert capsys.readouterr().err.startswith("preshuffle: unknown arch 'gfx906'; did you mean gfx9")
