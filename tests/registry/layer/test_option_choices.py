"""Options that an engine gives a closed list of values."""

from __future__ import annotations

from typing import Any

import pytest

from preshuffle.registry import Observation, Query
from support.book.strategies import BOOK, REGISTRY


def codes(engine: str | None, value: str) -> tuple[list[str], list[str]]:
    """Return the messages of flag_unknown in resolve and in check."""
    query: dict[str, Any] = {"model": "openai/gpt-oss-20b", "arch": "gfx950", "env": {"--moe-backend": value}}
    query |= {"engine": engine} if engine else {}
    decision = REGISTRY.resolve(Query.parse(query))
    report = REGISTRY.check(Observation.parse({"query": query, "applied": {"tensors": {}}}))
    return tuple(  # type: ignore[return-value]
        [item.message for item in findings if item.code == "flag_unknown"]
        for findings in (decision.findings, report.findings)
    )


@pytest.mark.parametrize(
    ("engine", "value", "words"),
    [
        (
            "vllm@0.33.0",
            "aiter_mxfp4_mxfp4",
            "=aiter_mxfp4_mxfp4 is refused: vllm takes only auto, triton",
        ),
        ("vllm", "aiter_mxfp8", "is refused: vllm takes only"),
        ("vllm@0.31.0", "aiter_mxfp4_fp8", "is refused: vllm takes only"),
        ("vllm@0.31.0", "aiter_mega_moe", "vllm 0.31.0 does not take it yet; 0.32.0 is the first"),
    ],
)
def test_a_value_outside_the_list_is_a_finding(engine: str, value: str, words: str) -> None:
    for messages in codes(engine, value):
        assert len(messages) == 1
        assert words in messages[0]


@pytest.mark.parametrize(("engine", "value"), [("vllm@0.33.0", "aiter"), ("vllm", "AITER"), ("vllm@0.17.0", "auto")])
def test_a_value_of_the_list_is_none(engine: str, value: str) -> None:
    assert codes(engine, value) == ([], [])


def test_every_backend_that_rules_and_recipes_of_vllm_name_is_in_the_list() -> None:
    """A rule that rests on a value that the option cannot have matches nothing that runs."""
    choices = BOOK.flags["--moe-backend"].choices["vllm"]
    for rule in BOOK.rules.values():
        named = (rule.when.get("env") or {}).get("--moe-backend", ()) if rule.when.get("engine") == "vllm" else ()
        assert {named} if isinstance(named, str) else set(named) <= choices.keys(), rule.id
    for recipe in BOOK.recipes.values():
        if recipe.id.startswith("vllm.") and "--moe-backend" in recipe.env:
            assert recipe.env["--moe-backend"] in choices, recipe.id
