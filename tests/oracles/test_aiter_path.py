"""gpt-oss from checkpoint rows to laid-out bytes, against AITER.

Judged by AITER's own functions and kernel.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from preshuffle.layouts import Checkpoint, apply, write_checkpoint
from preshuffle.registry import Decision, Query, Registry
from support.aiter.afp4_gemm import Gemm, run_gemms
from support.aiter.aiter_wheel import AiterFunctions
from support.tensors.moe import ACTIVATIONS, SMALL, hf_config
from support.tensors.mxfp4 import Mxfp4, random_mxfp4, relative_error

CONFIG = hf_config()
M = 32


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), CONFIG)


def decided(checkpoint: Checkpoint, activation: str, tp: int) -> tuple[Query, Decision]:
    query = Registry.default().query_from_hf_config(
        checkpoint.folder, arch="gfx950", activation_dtype=activation, tp=tp
    )
    return query, Registry.default().resolve(query)


def step_by_step(role: str, plain: Tensor, decision: Decision, aiter: AiterFunctions) -> Tensor:
    """What an engine does: rows in gate-up order, padding, then AITER's function."""
    tensor = decision.tensors[role]  # type: ignore[index]
    rows = plain.float() if role.endswith("_bias") else plain
    if role.startswith("w13"):
        rows = torch.cat([rows[:, 0::2], rows[:, 1::2]], dim=1)
    halves = 2 if role.startswith("w13") else 1
    experts, count = rows.shape[0], rows.shape[1] // halves
    width = 1 if rows.dim() == 2 else tensor.physical_shape[2] // (2 if role.endswith("weight") else 1)
    live = rows.reshape(experts, halves, count, -1)
    padded = rows.new_full((experts, halves, tensor.physical_shape[1] // halves, width), tensor.fill)
    padded[:, :, :count, : live.shape[3]] = live
    whole = padded.flatten(1, 2)
    interleave = decision.call.gate_mode == "interleave"
    if role.endswith("_bias"):
        return whole.squeeze(-1)
    if role.endswith("_weight"):
        return aiter.shuffle_weight_a16w4(whole, 16, halves == 2) if interleave else aiter.shuffle_weight(whole)
    flat = whole.flatten(0, 1)
    laid = aiter.shuffle_scale_a16w4(flat, experts, halves == 2) if interleave else aiter.e8m0_shuffle(flat)
    return laid[: flat.shape[0]].view(whole.shape)


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_apply_gives_the_bytes_of_aiters_functions(
    checkpoint: Checkpoint, aiter: AiterFunctions, activation: str, tp: int
) -> None:
    query, decision = decided(checkpoint, activation, tp)
    for tp_rank in {0, tp - 1}:
        plain = checkpoint.rank(0, query, tp_rank=tp_rank)
        tensors = dict(plain)
        apply(tensors, decision)
        for role, tensor in tensors.items():
            wanted = step_by_step(role, plain[role], decision, aiter).contiguous()
            assert tensor.view(torch.uint8).flatten().equal(wanted.view(torch.uint8).flatten()), role


def test_aiters_kernel_multiplies_with_what_apply_made_of_a_checkpoint(checkpoint: Checkpoint) -> None:
    """AITER's kernel gives the product with the plain checkpoint.

    Generic layout, expert by expert, with gate, up and down.
    """
    query, decision = decided(checkpoint, "fp4x2", 1)
    plain = checkpoint.rank(0, query)
    tensors = dict(plain)
    apply(tensors, decision)
    gemms: list[Gemm] = []
    wanted: list[Tensor] = []
    for expert in (0, SMALL["num_experts"] - 1):
        for name in ("w13", "w2"):
            codes, scales = plain[f"{name}_weight"][expert], plain[f"{name}_weight_scale"][expert]
            if name == "w13":
                codes, scales = (torch.cat([part[0::2], part[1::2]]) for part in (codes, scales))
            layer = [tensors[f"{name}_weight{suffix}"].view(torch.uint8) for suffix in ("", "_scale")]
            laid = [part.view(SMALL["num_experts"], -1, part.shape[-1])[expert] for part in layer]
            x = random_mxfp4(M, 2 * laid[0].shape[1], seed=expert)
            gemms.append(Gemm(x.codes, laid[0], x.scales, laid[1]))
            weight = Mxfp4(codes, scales).dequantize()
            wanted.append(x.dequantize()[:, : weight.shape[1]] @ weight.T)
    for found, expected in zip(run_gemms(gemms), wanted, strict=True):
        halves = 2 if found.shape[1] > expected.shape[1] and expected.shape[1] == 2 * SMALL["intermediate_size"] else 1
        rows = found.view(M, halves, -1)[:, :, : expected.shape[1] // halves].reshape(expected.shape)
        assert relative_error(rows, expected) < 1e-6
        assert not found.view(M, halves, -1)[:, :, expected.shape[1] // halves :].any(), "padding multiplies to zero"
