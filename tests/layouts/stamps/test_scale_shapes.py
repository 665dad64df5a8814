"""MX scales in the shape that kernels take, and pads of two bytes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from preshuffle.layouts import apply, inverse
from preshuffle.layouts.loader.expert import expert_view
from preshuffle.layouts.loader.reload import begin_reload, finish_reload, relayout
from preshuffle.registry import Decision, Query
from preshuffle.registry.base.words import Role
from support.aiter.aiter_wheel import AiterFunctions
from support.book.strategies import REGISTRY

SIZES = {"num_experts": 3, "top_k": 1, "hidden_size": 512, "intermediate_size": 256}
SCALES: tuple[Role, ...] = ("w13_weight_scale", "w2_weight_scale")
Tensors = dict[str, torch.Tensor]


def decide(**fields: Any) -> Decision:
    return REGISTRY.resolve(Query.parse({"model": "openai/gpt-oss-120b", "arch": "gfx950", **SIZES, **fields}))


def layer_of(decision: Decision) -> Tensors:
    random = torch.Generator().manual_seed(3)
    tensors: Tensors = {}
    for role, decided in decision.tensors.items():
        *rest, k = decided.logical_shape
        if role.endswith("_bias"):
            tensors[role] = torch.randn(decided.logical_shape, generator=random)
        elif not role.endswith("_input_scale"):
            width = k // 2 if decided.dtype == "fp4x2" else k
            tensors[role] = torch.randint(1, 120, (*rest, width), dtype=torch.uint8, generator=random)
    return tensors


def applied(decision: Decision, tensors: Tensors) -> Tensors:
    laid = {role: tensor.clone() for role, tensor in tensors.items()}
    apply(laid, decision, allow=[finding.code for finding in decision.findings])
    return laid


@pytest.mark.parametrize("engine", [None, "atom", "vllm", "sglang"])
def test_mx_scales_are_passed_flat_over_experts(engine: str | None) -> None:
    decision = decide(engine=engine) if engine else decide()
    plain = layer_of(decision)
    laid = applied(decision, plain)
    for role in SCALES:
        experts, rows, k = decision.tensors[role].physical_shape
        assert tuple(laid[role].shape) == decision.tensors[role].passed_shape == (experts * rows, k)
    inverse(laid, decision)
    assert all(torch.equal(laid[role], plain[role]) for role in plain)


def test_gfx1250_passes_rows_of_tiles() -> None:
    decision = decide(arch="gfx1250", activation_dtype="fp4x2")
    laid = applied(decision, layer_of(decision))
    for role in SCALES:
        experts, rows, k = decision.tensors[role].physical_shape
        assert tuple(laid[role].shape) == decision.tensors[role].passed_shape == (experts, rows // 32, 32 * k)
        assert expert_view(laid, role, 1).data_ptr() == laid[role][1].data_ptr()


def test_triton_keeps_experts_apart() -> None:
    decision = decide(engine="vllm", env={"--moe-backend": "aiter_triton_mxfp4_bf16"})
    assert decision.call.backend == "triton"
    for role in SCALES:
        experts, rows, k = decision.tensors[role].physical_shape
        assert decision.tensors[role].passed_shape == (experts, rows // 32, 32 * k)


@pytest.mark.parametrize("flat", [False, True])
def test_a_buffer_of_the_padded_size_keeps_its_address_through_a_reload(flat: bool) -> None:
    decision = decide(activation_dtype="fp4x2")
    plain = layer_of(decision)
    wanted = applied(decision, plain)
    if flat:
        plain |= {role: plain[role].flatten(0, 1) for role in SCALES}
    tensors = {role: tensor.clone() for role, tensor in plain.items()}
    addresses = {role: tensors[role].data_ptr() for role in SCALES}
    apply(tensors, decision)
    assert all(torch.equal(tensors[role], wanted[role]) for role in SCALES)
    assert {role: tensors[role].data_ptr() for role in SCALES} == addresses
    begin_reload(tensors)
    for role, tensor in tensors.items():
        if role in SCALES:
            assert tuple(tensor.shape) == decision.tensors[role].physical_shape
        tensor.view(torch.uint8).copy_(plain[role].view(tensor.shape).view(torch.uint8))
    finish_reload(tensors, decision)
    assert all(torch.equal(tensors[role], wanted[role]) for role in SCALES)
    inverse(tensors)
    assert all(torch.equal(tensors[role].view(plain[role].shape), plain[role]) for role in SCALES)


def test_relayout_gives_the_new_decisions_shape() -> None:
    decision, other = decide(activation_dtype="fp4x2"), decide(activation_dtype="bf16")
    laid = applied(decision, layer_of(decision))
    relayout(laid, other)
    wanted = applied(other, layer_of(other))
    assert all(torch.equal(laid[role], wanted[role]) for role in SCALES)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "atom"])
@pytest.mark.parametrize("groups", [5, 9, 11, 65])
def test_two_fills_are_those_of_the_engine_and_of_aiter(engine: str, groups: int, aiter: AiterFunctions) -> None:
    """The engine pads to 128 values with zeros; AITER's function then pads K to 8 groups with 127."""
    env = {"ATOM_MOE_GU_ITLV": "1"} if engine == "atom" else {}
    query = {"model": "deepseek-ai/DeepSeek-V4-Pro", "arch": "gfx950", "engine": engine, "env": env, **SIZES}
    decision = REGISTRY.resolve(Query.parse({**query, "hidden_size": 384, "intermediate_size": 32 * groups}))
    plain = layer_of(decision)
    laid = applied(decision, plain)
    rows, k = -(-groups // 4) * 128, -(-groups // 4) * 4
    w13 = torch.zeros(3, 2, rows, 12, dtype=torch.uint8)
    w13[:, :, : 32 * groups] = plain["w13_weight_scale"].view(3, 2, 32 * groups, 12)
    w2 = torch.zeros(3, 384, k, dtype=torch.uint8)
    w2[:, :, :groups] = plain["w2_weight_scale"]
    for role, buffer, gate_up in (("w13_weight_scale", w13.view(-1, 12), True), ("w2_weight_scale", w2, False)):
        flat = buffer.reshape(-1, buffer.shape[-1])
        padded = torch.nn.functional.pad(flat, (0, -flat.shape[1] % 8), value=127)
        wanted = aiter.shuffle_scale_a16w4(padded, 3, gate_up)
        assert torch.equal(laid[role], wanted.view(laid[role].shape)), role
    inverse(laid, decision)
    assert all(torch.equal(laid[role], plain[role]) for role in plain)
