"""Scales that no checkpoint has, because the engine makes them: `apply` makes them too, and `prove` follows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from preshuffle.layouts import apply, inverse, prove
from preshuffle.layouts.loader import AITER_TAG
from preshuffle.registry import Decision, LayoutError, Query, Registry

EXPERTS, HIDDEN, INNER = 3, 128, 128
REGISTRY = Registry.default()


def decide(**fields: Any) -> Decision:
    """Return SGLang's decision on experts with one fp8 scale per tensor."""
    query = {
        "model": "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "arch": "gfx950",
        "engine": "sglang@0.5.23",
        "weight_dtype": "fp8",
        "quant_type": "per_Tensor",
        "activation_dtype": "fp8",
        "producer": "fp8",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_experts": EXPERTS,
        "env": {"SGLANG_USE_AITER": "1"},
    }
    return REGISTRY.resolve(Query.parse({**query, **fields}))


def floats(*shape: int, seed: int = 1) -> torch.Tensor:
    """Return numbers between 0.1 and 2."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 1.9 + 0.1


def plain() -> dict[str, torch.Tensor]:
    """Return what the checkpoint holds."""
    return {
        "w13_weight": (floats(EXPERTS, 2 * INNER, HIDDEN, seed=2) * 40).to(torch.float8_e4m3fn),
        "w2_weight": (floats(EXPERTS, HIDDEN, INNER, seed=3) * 40).to(torch.float8_e4m3fn),
        "w13_weight_scale": floats(EXPERTS, 2, seed=4),
        "w2_weight_scale": floats(EXPERTS, seed=5),
    }


def copies(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return clones."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def in_columns(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the same layer with columns of ones, as SGLang's own layer has them."""
    made = copies(tensors)
    made["w13_weight_scale1"] = torch.ones(EXPERTS, 2 * INNER, 1)
    made["w2_weight_scale1"] = torch.ones(EXPERTS, HIDDEN, 1)
    return made


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
@pytest.mark.parametrize("shape", [(EXPERTS,), (EXPERTS, 1)])
def test_left_out_columns_are_ones(arch: str, shape: tuple[int, ...]) -> None:
    decision, tensors = decide(arch=arch), plain()
    apply(written := in_columns(tensors), decision)
    left_out = copies({**tensors, "w2_weight_scale": tensors["w2_weight_scale"].view(shape)})
    result = apply(left_out, decision)
    times = 2 if arch == "gfx942" else 1
    assert left_out["w2_weight_scale"].equal(tensors["w2_weight_scale"].view(-1, 1, 1).expand(-1, HIDDEN, 1) * times)
    for role, name in (("w13_weight", "w13_weight"), ("w13_weight_scale", "w13_weight_scale1")):
        assert left_out[role].view(torch.uint8).equal(written[name].view(torch.uint8))
    assert set(result.tensors) == set(decision.tensors)


def test_the_scale_may_stand_under_its_name_of_second_level() -> None:
    tensors = plain()
    named = {f"{name}_2" if name.endswith("scale") else name: tensor for name, tensor in copies(tensors).items()}
    apply(named, decide())
    apply(tensors, decide())
    assert named["w13_weight_scale"].equal(tensors["w13_weight_scale"])
    assert named["w2_weight_scale_2"].shape == (EXPERTS,)


def test_of_a_module_too() -> None:
    module = torch.nn.Module()
    for name, tensor in plain().items():
        module.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
    apply(module, decide())
    assert module.w13_weight_scale.shape == (EXPERTS, 2 * INNER, 1)
    assert getattr(module.w13_weight, AITER_TAG)
    with pytest.raises(LayoutError, match="laid out already"):
        apply(module, decide())
    apply(module, decide(), again="skip")


def test_prove_makes_them_too() -> None:
    apply(laid := copies(plain()), decide())
    checks = prove(plain(), laid, decide())
    assert all(check.ok for check in checks), checks


def test_an_inverse_is_refused_with_the_reason() -> None:
    tensors = {**plain(), "w13_weight_scale": torch.ones(EXPERTS, 2), "w2_weight_scale": torch.ones(EXPERTS)}
    apply(tensors, decide())
    with pytest.raises(LayoutError, match="the default put numbers there that the checkpoint does not have"):
        inverse(tensors)


def test_a_scale_of_another_shape_is_no_scale_of_the_tensor() -> None:
    tensors = {**plain(), "w13_weight_scale": floats(EXPERTS, INNER)}
    with pytest.raises(LayoutError, match="w13_weight_scale is missing"):
        apply(tensors, decide())


def test_what_has_no_default_must_be_there() -> None:
    tensors = {name: tensor for name, tensor in plain().items() if name != "w2_weight_scale"}
    with pytest.raises(LayoutError, match="missing: w2_weight_scale"):
        apply(tensors, decide())


def test_a_decision_says_which_scales_may_be_left_out() -> None:
    decision = decide()
    assert decision.tensors["w13_weight_scale"].default == 1
    assert decision.tensors["w13_weight"].default is None
