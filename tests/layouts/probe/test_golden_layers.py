"""Golden layers cover every quantization; no mistake is small."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from preshuffle.layouts.probe.aiter_runner import AiterRunner
from preshuffle.layouts.probe.golden import Golden, decide_with_recipe, make_golden, mistakes, select_recipes
from preshuffle.layouts.probe.golden_layers import LAYERS, golden_query
from preshuffle.layouts.probe.probe import LIMITS, ProbeError, ProbeReport, probe, reference_laid_out
from preshuffle.layouts.proof.reference import relative_error
from preshuffle.registry import Query, Registry
from support.aiter import fused_moe_standin as standin

REGISTRY = Registry.default()
GELU = ("fp8-block", "fp8-channel", "fp8-tensor", "bf16", "fp16", "int4-fp8")
SWIGLU = ("mxfp4-silu", "mxfp8")
CASES = [(name, None) for name in LAYERS] + [(name, "Gelu") for name in GELU] + [(name, "Swiglu") for name in SWIGLU]
WIDE = ("fp8-block", "fp8-channel", "fp8-tensor", "bf16", "fp16")
"""What the stand-in reads."""


def query(name: str, activation: str | None = None, arch: str = "gfx950") -> Query:
    return golden_query(arch, name, **({"activation": activation} if activation else {}))


def goldens(asked: Query) -> list[Golden]:
    recipes = select_recipes(None, REGISTRY, asked)
    return [make_golden(decide_with_recipe(recipe, asked, REGISTRY), asked.top_k or 1) for recipe in recipes]


def run(function: Callable[..., Any], asked: Query, tokens: tuple[int, ...] = (1, 64)) -> ProbeReport:
    runner = AiterRunner(lambda: (function, standin.PACKAGE))
    return probe(runner, select_recipes(None, REGISTRY, asked), asked, tokens=tokens, repeats=0)


@pytest.mark.parametrize(("name", "activation"), CASES)
def test_the_reference_passes_with_every_recipe(name: str, activation: str | None) -> None:
    asked = query(name, activation)
    report = probe(reference_laid_out, select_recipes(None, REGISTRY, asked), asked, tokens=(5,), repeats=0)
    assert {result.verdict for result in report.results} == {"pass"}
    exact = 1e-4 if name == "fp8-tensor" else 1e-12  # one scale for gate and up costs values near zero
    assert all(result.relative_l2 is not None and result.relative_l2 < exact for result in report.results)


@pytest.mark.parametrize("name", ["fp8-block", "fp8-channel", "fp8-tensor", "bf16", "int4"])
def test_the_reference_passes_where_fp8_has_no_negative_zero(name: str) -> None:
    asked = query(name, arch="gfx942")
    report = probe(reference_laid_out, select_recipes(None, REGISTRY, asked), asked, tokens=(5,), repeats=0)
    assert report.verdict == "pass"
    assert all(result.relative_l2 is not None and result.relative_l2 < 1e-4 for result in report.results)


@pytest.mark.parametrize("name", LAYERS)
def test_every_mistake_is_further_away_than_what_activations_may_cost(name: str) -> None:
    asked = query(name)
    golden = goldens(asked)[0]
    x, routing = golden.inputs(32)
    wanted = golden.reference(x, routing)
    found = {mistake: relative_error(wrong(x, routing), wanted) for mistake, wrong in mistakes(golden)}
    assert {"gate and up swapped", "halved", "doubled"} <= set(found)
    assert min(found.values()) > max(limits.fair for limits in LIMITS.values()), found


@pytest.mark.parametrize("name", LAYERS)
def test_activations_of_the_layers_own_dtype_pass(name: str) -> None:
    """Rounding the layer's input stays within its dtype's limits.

    In float64 otherwise.
    """
    asked = query(name)
    golden = goldens(asked)[0]
    x, routing = golden.inputs(64)
    dtype = asked.activation_dtype or "bf16"
    if dtype == "fp4x2":
        pytest.skip("a group's scale is the kernel's business")
    limit = x.double().abs().amax(1, keepdim=True) / 448
    rounded = {"fp8": lambda: (x.double() / limit).to(torch.float8_e4m3fn).double() * limit, "bf16": x.double}
    cheap = relative_error(golden.reference(rounded.get(dtype, x.double)(), routing), golden.reference(x, routing))
    assert cheap < LIMITS[dtype].good


@pytest.mark.parametrize(("name", "activation"), [(name, None) for name in WIDE] + [(name, "Gelu") for name in WIDE])
def test_a_right_kernel_passes(name: str, activation: str | None) -> None:
    report = run(standin.other_fused_moe, query(name, activation))
    assert report.verdict == "pass", report
    assert all(result.relative_l2 is not None and result.relative_l2 < 0.005 for result in report.results)


@pytest.mark.parametrize("name", WIDE)
def test_a_wrong_kernel_is_found_and_named(name: str) -> None:
    report = run(partial(standin.other_fused_moe, swap=True), query(name), tokens=(8,))
    assert {(one.verdict, one.looks_like) for one in report.results} == {("fail", "gate and up swapped")}


@pytest.mark.parametrize("name", WIDE)
def test_plain_bytes_are_named(name: str) -> None:
    def raw(
        tensors: dict[str, torch.Tensor],
        decision: Any,
        x: torch.Tensor,
        topk_ids: torch.Tensor,
        topk_weights: torch.Tensor,
    ) -> torch.Tensor:
        """A kernel for row-major weights on the bytes that were laid out for tiles."""
        w13 = decision.tensors["w13_weight"].model_copy(update={"layout": "plain"})
        plain = decision.model_copy(update={"tensors": {**decision.tensors, "w13_weight": w13}})
        return reference_laid_out(tensors, plain, x, topk_ids, topk_weights)

    asked = query(name)
    report = probe(raw, select_recipes(None, REGISTRY, asked), asked, tokens=(8,), repeats=0)
    assert {(one.verdict, one.looks_like) for one in report.results} == {("fail", "w13 read as plain")}


def test_two_recipes_of_one_quantization_side_by_side() -> None:
    asked = query("mxfp4-silu")
    recipes = select_recipes("mxfp4.sep16.silu,mxfp4.gui16.silu", REGISTRY, asked)
    report = probe(reference_laid_out, recipes, asked, tokens=(1, 64), repeats=1)
    assert [(one.recipe, one.tokens) for one in report.results] == [
        (recipe, tokens) for recipe in ("mxfp4.sep16.silu", "mxfp4.gui16.silu") for tokens in (1, 64)
    ]
    assert report.verdict == "pass"
    assert all(one.microseconds for one in report.results)


def test_a_recipe_for_another_entry_point_is_refused() -> None:
    asked = query("mxfp4")
    golden = goldens(asked)[0]
    call = golden.decision.call.model_copy(update={"function": "moe_gemm_a16w4"})
    runner = AiterRunner(lambda: (standin.new_fused_moe, standin.PACKAGE))
    with pytest.raises(ProbeError, match="runs fused_moe; the decided call is of moe_gemm_a16w4"):
        runner({}, golden.decision.model_copy(update={"call": call}), *[torch.zeros(1, 1)] * 3)


def test_a_model_brings_its_own_quantization() -> None:
    asked = golden_query(model="zai-org/GLM-4.7-FP8")
    report = probe(reference_laid_out, select_recipes(None, REGISTRY, asked), asked, tokens=(3,), repeats=0)
    assert report.verdict == "pass"
    assert report.results[0].recipe.startswith("fp8-channel")
