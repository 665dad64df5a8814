"""AITER's ``fused_moe`` as a runner, with stand-ins.

Against the wheel's real signature, and stand-ins that read laid-out bytes.
"""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from preshuffle.layouts import apply
from preshuffle.layouts.probe.aiter_runner import AiterRunner, environment, runner_arguments, why_not_here
from preshuffle.layouts.probe.golden import decide_with_recipe, make_golden, select_recipes
from preshuffle.layouts.probe.golden_layers import golden_query
from preshuffle.layouts.probe.probe import ProbeError, ProbeReport, probe
from preshuffle.registry import Decision, Recipe, Registry
from support.aiter import fused_moe_standin as standin
from support.aiter.aiter_wheel import wheel_root

REGISTRY = Registry.default()


def named(names: str) -> tuple[Recipe, ...]:
    return select_recipes(names, REGISTRY, golden_query())


def run(
    function: Callable[..., Any], recipes: str = "legacy,generic", tokens: tuple[int, ...] = (1, 64)
) -> ProbeReport:
    runner = AiterRunner(lambda: (function, standin.PACKAGE))
    return probe(runner, named(recipes), golden_query(), tokens=tokens, repeats=0)


def decision(name: str) -> Decision:
    return decide_with_recipe(named(name)[0], golden_query(), REGISTRY)


def laid(name: str) -> tuple[dict[str, torch.Tensor], Decision]:
    decided = decision(name)
    tensors = dict(make_golden(decided, 4).tensors)
    apply(tensors, decided)
    return tensors, decided


def wheel_signature() -> inspect.Signature:
    """The parameters of the wheel's ``fused_moe``, read without importing it."""
    tree = ast.parse((wheel_root() / "aiter" / "fused_moe.py").read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "fused_moe")
    required = len(found.args.args) - len(found.args.defaults)
    return inspect.Signature(
        [
            inspect.Parameter(
                argument.arg,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if number < required else None,
            )
            for number, argument in enumerate(found.args.args)
        ]
    )


def test_an_aiter_with_gate_mode_passes_with_both_layouts() -> None:
    report = run(standin.new_fused_moe, tokens=(1, 64, 256, 1024))
    assert report.verdict == "pass"
    assert [result.recipe for result in report.results] == ["mxfp4.gui16"] * 4 + ["mxfp4.sep16"] * 4
    assert all(result.relative_l2 is not None and result.relative_l2 < 0.005 for result in report.results)


def test_an_aiter_before_gate_mode_takes_the_legacy_layout_only() -> None:
    report = run(standin.old_fused_moe)
    verdicts = {(result.recipe, result.verdict) for result in report.results}
    assert verdicts == {("mxfp4.gui16", "pass"), ("mxfp4.sep16", "error")}
    assert all("no gate_mode" in str(result.error) for result in report.results if result.verdict == "error")


@pytest.mark.parametrize(
    ("function", "looks_like"),
    [
        (standin.swapping, "gate and up swapped"),
        (standin.halving, "halved"),
        (standin.unbiased, "both biases dropped"),
        (standin.unlimited, "no limit"),
        (standin.not_finite, "infinities or NaN in the output"),
    ],
)
def test_a_wrong_kernel_is_found_and_named(function: Callable[..., Any], looks_like: str) -> None:
    report = run(function)
    assert {(result.verdict, result.looks_like) for result in report.results} == {("fail", looks_like)}


def test_a_kernel_that_ignores_gate_mode_fails_where_the_layout_is_the_other() -> None:
    report = run(standin.deaf)
    for result in report.results:
        wrong = result.recipe == "mxfp4.gui16"
        assert (result.verdict, result.looks_like) == (("fail", "w13 read as sep16") if wrong else ("pass", None))


def test_a_kernel_that_raises_at_one_token_count_is_an_error_there() -> None:
    report = run(standin.raising, tokens=(64, 256))
    assert [result.verdict for result in report.results] == ["pass", "error"] * 2
    errors = {result.error for result in report.results if result.tokens == 256}
    assert errors == {"RuntimeError: Unsupported kernel config for moe heuristic dispatch"}
    assert report.verdict == "error"


def test_a_halved_result_keeps_its_direction() -> None:
    for result in run(standin.halving).results:
        assert result.cosine is not None
        assert result.cosine > 0.9999
        assert result.scale == pytest.approx(0.5, abs=1e-3)


def test_the_wheels_signature_takes_the_legacy_call() -> None:
    tensors, decided = laid("legacy")
    signature = wheel_signature()
    arguments = runner_arguments(signature, tensors, decided, standin.PACKAGE)
    bound = signature.bind(hidden_states=0, topk_weight=0, topk_ids=0, **arguments)
    assert bound.arguments["w1"] is tensors["w13_weight"]
    assert bound.arguments["w2_scale"] is tensors["w2_weight_scale"]
    assert bound.arguments["bias1"] is tensors["w13_bias"]
    assert bound.arguments["bias1"].dtype == torch.float32
    assert (bound.arguments["hidden_pad"], bound.arguments["intermediate_pad"]) == (192, 192)
    assert bound.arguments["activation"] is standin.ActivationType.Swiglu


def test_the_wheels_signature_refuses_the_generic_call() -> None:
    tensors, decided = laid("generic")
    with pytest.raises(ProbeError, match="takes no gate_mode"):
        runner_arguments(wheel_signature(), tensors, decided, standin.PACKAGE)


def test_what_changes_the_result_must_be_taken() -> None:
    tensors, decided = laid("legacy")
    parameters = [p for name, p in wheel_signature().parameters.items() if name != "bias1"]
    with pytest.raises(ProbeError, match="takes no bias1"):
        runner_arguments(inspect.Signature(parameters), tensors, decided, standin.PACKAGE)
    other = decided.model_copy(update={"call": decided.call.model_copy(update={"swiglu_limit": 10.0})})
    with pytest.raises(ProbeError, match="takes no swiglu_limit"):
        runner_arguments(wheel_signature(), tensors, other, standin.PACKAGE)
    without = [p for name, p in wheel_signature().parameters.items() if name != "hidden_pad"]
    assert "hidden_pad" not in runner_arguments(inspect.Signature(without), tensors, decided, standin.PACKAGE)


def test_the_recipes_environment_is_there_while_the_kernel_runs_and_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "AITER_BF16_FP8_MOE_BOUND"
    monkeypatch.delenv(name, raising=False)
    seen: list[str | None] = []

    def spy(hidden_states: torch.Tensor, **arguments: Any) -> torch.Tensor:
        seen.append(os.environ.get(name))
        return standin.unbiased(hidden_states, **arguments)

    def load() -> Any:
        seen.append(os.environ.get(name))
        return spy, standin.PACKAGE

    runner = AiterRunner(load)
    probe(runner, named("legacy"), golden_query(), tokens=(1,), repeats=0)
    assert seen == ["2147483647", "2147483647"]
    assert name not in os.environ
    monkeypatch.setenv(name, "7")
    with pytest.raises(ZeroDivisionError), environment({name: "8"}):
        raise ZeroDivisionError
    assert os.environ[name] == "7"


def test_nothing_of_aiter_is_imported_where_there_is_no_rocm() -> None:
    if torch.version.hip is not None:
        pytest.skip("this torch has ROCm")
    assert why_not_here() == "this torch has no ROCm"
    code = (
        "import sys\n"
        "from preshuffle.layouts.probe.runners import choose_runner\n"
        "choose_runner('reference')\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'aiter']\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ProbeError, match="does not run here"):
        AiterRunner()({}, decision("legacy"), torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1))
