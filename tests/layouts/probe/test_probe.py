"""The probe shows every mistake and passes the reference."""

from __future__ import annotations

import pytest
import torch

from preshuffle.layouts.probe.golden import decide_with_recipe, make_golden, mistakes, select_recipes
from preshuffle.layouts.probe.golden_layers import golden_query
from preshuffle.layouts.probe.probe import LIMITS, ProbeError, probe, reference_laid_out
from preshuffle.layouts.probe.runners import REFERENCE, choose_runner
from preshuffle.layouts.proof.reference import relative_error
from preshuffle.registry import Decision, LayoutError, Recipe, Registry

REGISTRY = Registry.default()
DECISION = REGISTRY.resolve(golden_query())
CHOICE = [DECISION.recipe, *(one.recipe for one in DECISION.alternatives)]
ENGINES = [name for name in REGISTRY.book.recipes if name in ("vllm.gpt-oss.gui16", "sglang.mxfp4.gui16")]


def named(names: str) -> tuple[Recipe, ...]:
    return select_recipes(names, REGISTRY, golden_query())


@pytest.mark.parametrize("recipe", ["legacy", "generic"])
@pytest.mark.parametrize("tokens", [1, 64])
def test_every_mistake_is_further_away_than_the_coarsest_activations(recipe: str, tokens: int) -> None:
    decision = decide_with_recipe(named(recipe)[0], golden_query(), REGISTRY)
    golden = make_golden(decision, 4)
    x, routing = golden.inputs(tokens)
    wanted = golden.reference(x, routing)
    fair = max(limits.fair for limits in LIMITS.values())
    for name, wrong in mistakes(golden):
        assert relative_error(wrong(x, routing), wanted) > fair, name


def test_the_golden_layer_is_the_same_every_time_and_in_every_layout() -> None:
    decisions = [decide_with_recipe(recipe, golden_query(), REGISTRY) for recipe in named("legacy,generic")]
    goldens = [make_golden(decision, 4) for decision in (*decisions, *decisions)]
    for golden in goldens[1:]:
        assert all(torch.equal(golden.tensors[role], tensor) for role, tensor in goldens[0].tensors.items())
    (x, routing), (again, _) = goldens[0].inputs(64), goldens[1].inputs(64)
    assert torch.equal(x, again)
    assert torch.equal(goldens[0].reference(x, routing), goldens[1].reference(x, routing))


@pytest.mark.parametrize("recipe", [*CHOICE, *ENGINES])
def test_the_reference_passes_with_every_mxfp4_recipe(recipe: str) -> None:
    report = probe(reference_laid_out, named(recipe), golden_query(), tokens=(4,), repeats=1)
    (result,) = report.results
    assert result.verdict == "pass"
    assert result.relative_l2 is not None
    assert result.relative_l2 < 1e-12
    assert result.microseconds
    assert result.kernel


def test_the_limits_follow_the_predicted_activations() -> None:
    report = probe(reference_laid_out, named("generic"), golden_query(), tokens=(64, 256), repeats=0)
    assert [result.activation_dtype for result in report.results] == ["bf16", "fp4x2"]


def test_a_warning_lies_between_pass_and_failure() -> None:
    def noisy(factor: float) -> str:
        def run(
            tensors: dict[str, torch.Tensor],
            decision: Decision,
            x: torch.Tensor,
            topk_ids: torch.Tensor,
            topk_weights: torch.Tensor,
        ) -> torch.Tensor:
            return reference_laid_out(tensors, decision, x, topk_ids, topk_weights) * (1 + factor)

        return probe(run, named("legacy"), golden_query(), tokens=(4,), repeats=0).verdict

    assert [noisy(factor) for factor in (0.005, 0.02, 0.04)] == ["pass", "warn", "fail"]


def test_an_output_of_another_shape_is_an_error() -> None:
    report = probe(
        lambda tensors, decision, x, ids, weights: x[:, :-1],
        named("legacy"),
        golden_query(),
        tokens=(4,),
        repeats=0,
    )
    assert report.results[0].error == "the output has shape (4, 319), not (4, 320)"


def test_recipes_have_ids_and_tags() -> None:
    assert [recipe.id for recipe in named("legacy, generic")] == ["mxfp4.gui16", "mxfp4.sep16"]
    assert [recipe.id for recipe in named("mxfp4.sep16,generic")] == ["mxfp4.sep16"]
    with pytest.raises(LayoutError, match=r"no recipe is called 'modern'; valid: .*; or the tags .*generic, legacy"):
        named("modern")
    with pytest.raises(LayoutError, match="no recipe tagged 'legacy' is for this layer"):
        select_recipes("legacy", REGISTRY, golden_query("gfx1250", activation_dtype="fp8"))


def test_what_the_reference_cannot_compute_is_refused() -> None:
    decision = decide_with_recipe(named("legacy")[0], golden_query(), REGISTRY)
    for update, reason in {
        ("activation", "Situv2"): "no golden layer for Situv2: its formula is not recorded",
        ("activation", "Silu"): "no golden layer for Silu with a limit",
    }.items():
        changed = decision.model_copy(update={"call": decision.call.model_copy(update=dict([update]))})
        with pytest.raises(LayoutError, match=reason):
            make_golden(changed, 4)
    alone = decision.tensors["w13_weight"].model_copy(update={"order": None})
    without_gate = decision.model_copy(update={"tensors": {**decision.tensors, "w13_weight": alone}})
    with pytest.raises(LayoutError, match="no golden layer without a gate"):
        make_golden(without_gate, 4)
    with pytest.raises(LayoutError, match=r"no golden layer is called 'int8'; valid: mxfp4, .*, fp8-block, .*, int4"):
        golden_query(quantization="int8")


@pytest.mark.skipif(torch.version.hip is not None, reason="this torch has ROCm")
def test_runners_are_found_by_name(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_runner("reference").runner is reference_laid_out
    assert choose_runner("reference").name == REFERENCE
    assert choose_runner("preshuffle.layouts.probe.probe:reference_laid_out").runner is reference_laid_out
    for name, text in {
        "aiter": "AITER does not run here",
        "nonsense": "unknown runner",
        "preshuffle.layouts.probe.probe:absent": "AttributeError",
        "no_such_module:f": "ModuleNotFoundError",
        "preshuffle.layouts.probe.probe:LIMITS": "is a dict, no function",
    }.items():
        with pytest.raises(ProbeError, match=text):
            choose_runner(name)
