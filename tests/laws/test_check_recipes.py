"""Every recipe of the book, followed to the letter, has no error that its decision did not tell."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from preshuffle.registry import LayoutError, NoRecipeError, Observation, Query, QueryError, Registry, observation_of
from preshuffle.registry.entries.recipe import Recipe
from preshuffle.registry.entries.rule import Rule

SIZES = {"hidden_size": 7168, "intermediate_size": 2048, "num_experts": 32, "top_k": 8}
LISTED = {"known_bad"}
"""What is wrong with a kernel and no layout can mend."""


def first_of(wanted: Any) -> Any:
    return wanted[0] if isinstance(wanted, list | tuple) else wanted


def queries(rule: Rule, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Queries that a rule may answer, the likeliest first; ranges and globs are left to chance."""
    when = {name: first_of(wanted) for name, wanted in rule.when.items() if name not in ("env", "engine_version")}
    fixed = {name: value for name, value in when.items() if not str(value).startswith((">", "<"))}
    env = {name: str(first_of(value)) for name, value in rule.when.get("env", {}).items()}
    kind = recipe.tensors["w13_weight"].dtype.split("_")[0]
    weights = [(kind, recipe.call.quant_type), ("fp4x2", "per_1x32"), ("fp8", "per_1x32"), ("bf16", "No")]
    grid = product(
        weights, ("gfx950", "gfx942", "gfx1250"), ("Silu", "Swiglu", "Situv2"), ("GGUU", "GUGU"), (False, True)
    )
    asked: set[tuple[tuple[str, str], ...]] = set()
    for (dtype, quant), arch, activation, order, bias in grid:
        free: dict[str, object] = {"weight_dtype": dtype, "quant_type": quant, "arch": arch}
        free |= {"activation": activation}
        free |= {"gate_up_order": order, "bias": bias, "activation_dtype": "bf16", "model": "x/y", "aiter": "0.1.20"}
        if fixed.get("producer") == "deepseek":
            free["model"] = "deepseek-ai/DeepSeek-V4-Pro"  # whose switches stand for it alone
        fields = {**SIZES, **free, **fixed, "env": env, "tokens": [1, 4096]}
        key = tuple(sorted((name, str(value)) for name, value in fields.items()))
        if key not in asked:
            asked.add(key)
            yield {name: value for name, value in fields.items() if value is not None}


def observed(registry: Registry) -> Iterator[tuple[str, set[str], set[str]]]:
    """For each recipe that some such query reaches: the errors told by its decision, and those found by check."""
    seen: set[str] = set()
    for rule in registry.book.rules.values():
        if rule.use is None or rule.use in seen:
            continue
        for fields in queries(rule, registry.book.recipes[rule.use]):
            try:
                query = Query.parse(fields)
                decision = registry.resolve(query, kernels=False, nearest=False)
            except (NoRecipeError, QueryError, LayoutError):
                continue
            if decision.recipe == rule.use:
                decision = registry.resolve(query)
                report = registry.check(observation_of(decision, query))
                told: set[str] = {finding.code for finding in decision.findings if finding.severity == "error"}
                seen.add(rule.use)
                yield rule.use, told, {finding.code for finding in report.findings if finding.severity == "error"}
                break


def test_every_recipe_followed_to_the_letter_is_silent() -> None:
    registry = Registry.default()
    found = list(observed(registry))
    assert len(found) >= len(registry.book.recipes) * 3 // 4
    assert [(recipe, codes - told) for recipe, told, codes in found if codes - told - LISTED - {"unsupported"}] == []


def seen(quant_type: str, scale: list[int]) -> Observation:
    weight = {
        "layout": "sep16",
        "dtype": "fp8_e4m3fn",
        "logical_shape": [8, 512, 1024],
        "physical_shape": [8, 512, 1024],
    }
    tensors = {"w13_weight": weight, "w13_weight_scale": {"layout": "plain", "dtype": "fp32", "physical_shape": scale}}
    query = {"model": "x/y", "arch": "gfx950", "weight_dtype": "fp8", "quant_type": quant_type}
    return Observation.parse({"query": query, "applied": {"tensors": tensors}})


@pytest.mark.parametrize(
    ("quant_type", "scale", "wrong"),
    [
        ("per_Tensor", [8], False),
        ("per_Tensor", [8, 1], False),
        ("per_Tensor", [8, 2], True),
        ("per_Token", [8, 512], False),
        ("per_Token", [8, 512, 1], False),
        ("per_Token", [8, 256], True),
        ("per_Token", [8, 512, 8], True),
        ("per_1x128", [8, 4, 8], False),
        ("per_1x128", [8, 512, 8], True),
        ("per_1x32", [8, 512, 32], False),
        ("per_1x32", [4096, 32], False),
        ("per_1x32", [8, 512, 8], True),
    ],
)
def test_scales_of_each_quantization_have_their_shape(quant_type: str, scale: list[int], wrong: bool) -> None:
    findings = Registry.default().check(seen(quant_type, scale)).findings
    assert ("scale_shape" in {finding.code for finding in findings}) == wrong
