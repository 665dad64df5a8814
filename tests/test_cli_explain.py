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


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_has_every_rule_in_order(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["explain", *OPTIONS]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    recipes = [line.split()[1] for line in out.splitlines() if line.startswith("  → ")]
    assert len(recipes) == len(expected().rules)
    assert width == 80 or recipes == [rule.recipe or "nothing" for rule in expected().rules]
    assert "✗ activation_dtype = bf16; found fp4x2" in " ".join(out.split())


def test_the_ticket_is_complete_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *OPTIONS, "--text"]) == 0
    out = capsys.readouterr().out
    explanation = expected()
    assert out.startswith("preshuffle 0.")
    assert explanation.registry_digest in out
    assert '"activation_dtype": "fp4x2"' in out
    for number, rule in enumerate(explanation.rules, 1):
        assert f"{number}. {rule.rule} -> {rule.recipe or 'nothing works'}: {rule.outcome}" in out
        assert rule.why in out
        for name, wanted in rule.required.items():
            assert f"{name}={wanted}" in out


def test_it_answers_where_no_rule_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--model", "a/b", "--arch", "gfx950"]) == 1
    out = capsys.readouterr().out
    assert "no rule was chosen" in out
    assert main(["explain", "--model", "a/b", "--arch", "gfx950", "--text"]) == 1
    assert "chosen: none" in capsys.readouterr().out


def test_an_arch_that_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--model", MODEL, "--arch", "gfx906"]) == 1
    assert capsys.readouterr().err.startswith("preshuffle: unknown arch 'gfx906'; valid: ")
