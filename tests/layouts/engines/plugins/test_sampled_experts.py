"""Sampled experts: what every recipe makes of them alone, and what cannot be compared."""

from __future__ import annotations

import pytest
import torch

from preshuffle.layouts import apply
from preshuffle.layouts.engines.plugins.sampled_experts import compare_samples, take_samples
from preshuffle.layouts.probe.golden import decide_with_recipe, select_recipes
from preshuffle.layouts.probe.golden_layers import LAYERS, golden_query
from preshuffle.registry import Decision, NoRecipeError, Registry
from support.tensors.moe import decide, in_padded_buffers, plain_tensors
from support.tensors.plain_layer import checkpoint

REGISTRY = Registry.default()


def decisions(arch: str, name: str) -> list[Decision]:
    try:
        query = golden_query(arch, name).altered(num_experts=5)
        return [decide_with_recipe(recipe, query, REGISTRY) for recipe in select_recipes(None, REGISTRY, query)]
    except NoRecipeError:
        return []


def laid_out(plain: dict[str, torch.Tensor], decision: Decision, *, last_rank: bool = False) -> dict[str, torch.Tensor]:
    tensors = {role: tensor.clone() for role, tensor in plain.items()}
    apply(tensors, decision, backend="native", last_rank=last_rank)
    return tensors


@pytest.mark.parametrize("arch", ["gfx942", "gfx950", "gfx1250"])
def test_experts_alone_lie_as_among_all(arch: str) -> None:
    reasons: set[str] = set()
    equal = 0
    for decision in (one for name in LAYERS for one in decisions(arch, name)):
        plain = checkpoint(decision)
        samples = take_samples(plain, decision)
        tensors = laid_out(plain, decision)
        compared = compare_samples(tensors, samples)
        assert {one.role for one in compared} == set(decision.tensors)
        assert [one for one in compared if one.verdict == "differs"] == []
        reasons |= {reason for one in compared for reason in one.reasons}
        equal += sum(one.verdict == "equal" for one in compared)
        for one in compared:
            data = tensors[one.role].view(-1)[-1:].view(torch.uint8)
            data ^= 1
        found = {one.role for one in compare_samples(tensors, samples) if one.verdict == "differs"}
        assert found == {one.role for one in compared if one.verdict == "equal"}
    assert equal >= 20
    assert all(reason.startswith("its values are changed: ") for reason in reasons)


@pytest.mark.parametrize(
    ("engine", "activation", "tp", "last"),
    [("vllm", "bf16", 8, True), ("vllm", "fp4x2", 8, False), ("sglang", "bf16", 8, True), ("atom", "bf16", 1, False)],
)
def test_padded_buffers_and_short_ranks_are_compared(engine: str, activation: str, tp: int, last: bool) -> None:
    decision = decide(activation, engine=engine, tp=tp)
    every = plain_tensors(decision, last_rank=last)
    given = decision.model_copy(
        update={"tensors": {one: made for one, made in decision.tensors.items() if not one.endswith("_input_scale")}}
    )
    plain = {str(role): every[role] for role in given.tensors}
    buffers = in_padded_buffers(plain, given)
    samples = take_samples(buffers, decision, last_rank=last)
    compared = {one.role: one for one in compare_samples(laid_out(plain, decision, last_rank=last), samples)}
    assert {one.verdict for one in compared.values()} <= {"equal", "not compared"}, compared
    assert compared["w2_weight"].verdict == "equal"


def test_tiles_over_several_experts_are_not_compared() -> None:
    decision = decide("fp4x2", num_experts=3)
    rows = decision.tensors["w2_weight_scale"].model_copy(update={"physical_shape": (511, 8)})
    decision = decision.model_copy(update={"tensors": {**decision.tensors, "w2_weight_scale": rows}})
    samples = take_samples(plain_tensors(decision), decision)
    assert samples.skipped == {"w2_weight_scale": "its tiles or its pad run over several experts"}


@pytest.mark.parametrize(("most_bytes", "experts"), [(1 << 30, (0, 3)), (200_000, (0,)), (1000, ())])
def test_samples_are_bounded(most_bytes: int, experts: tuple[int, ...]) -> None:
    decision = decide("bf16")
    plain = plain_tensors(decision)
    samples = take_samples(plain, decision, most_bytes=most_bytes)
    assert samples.experts == experts
    assert sum(tensor.nbytes for tensor in samples.plain.values()) <= most_bytes
    verdicts = {one.verdict for one in compare_samples(laid_out(plain, decision), samples)}
    assert verdicts == ({"equal"} if experts else {"not compared"})


def test_a_layer_that_changes_its_names_is_not_compared() -> None:
    decision = decide("bf16")
    plain = plain_tensors(decision)
    samples = take_samples(plain, decision)
    tensors = laid_out(plain, decision)
    del tensors["w2_bias"]
    tensors["w13_bias"] = tensors["w13_bias"].t()
    compared = {one.role: one.reasons for one in compare_samples(tensors, samples) if one.verdict == "not compared"}
    assert compared == {
        "w2_bias": ("the converted layer has no tensor of this role",),
        "w13_bias": ("its bytes do not lie behind each other",),
    }
