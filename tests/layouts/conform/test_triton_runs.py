"""Triton runs: activations in MX formats, tensors in other layouts, figures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from preshuffle.layouts.conform.moe_gemms import _numbers
from preshuffle.layouts.conform.standins.mx_activations import GROUP, mx_fp4, mx_fp8
from preshuffle.layouts.conform.standins.triton_worker import OtherLayout, _others
from preshuffle.layouts.probe import golden_query
from preshuffle.layouts.tensors.mxfp4 import dequantize
from preshuffle.registry import Registry

BOOK = Registry.default().book


def values() -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randn(8, 128, generator=random) * torch.logspace(-9, 9, 8)[:, None]


def test_fp8_groups_keep_their_values_to_a_sixteenth() -> None:
    wanted = values()
    data, codes = mx_fp8(wanted)
    found = data.float() * torch.exp2(codes.float() - 127).repeat_interleave(GROUP, -1)
    assert data.dtype == torch.float8_e4m3fn
    assert bool(data.float().isfinite().all())
    assert float((found - wanted).norm() / wanted.norm()) < 1 / 16


def test_fp4_groups_are_read_back_as_the_checkpoints_format_says() -> None:
    wanted = values()
    data, codes = mx_fp4(wanted)
    found = dequantize(data[None], codes[None])[0].float()
    assert tuple(data.shape) == (8, 64)
    assert float((found - wanted).norm() / wanted.norm()) < 0.2
    assert bool((found.sign() * wanted.sign() >= 0).all())


def test_values_of_the_format_are_exact() -> None:
    levels = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    row = torch.cat([levels, -levels]).repeat(2)[None]
    data, codes = mx_fp4(row)
    assert torch.equal(dequantize(data[None], codes[None])[0].float(), row)


def test_zeros_stay_zeros() -> None:
    for quantize in (mx_fp8, mx_fp4):
        data, _ = quantize(torch.zeros(2, 64))
        assert not bool(data.view(torch.uint8).any())


RECIPES = ("atom.mxfp4.plain.swiglu", "atom.mxfp4.plain.silu.gfx942")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_tensor_is_given_in_every_other_layout_once(recipe: str) -> None:
    registry = Registry.default()
    sizes = {"hidden_size": 512, "intermediate_size": 512, "num_experts": 4, "top_k": 2}
    query = golden_query("gfx950", "mxfp4" if "swiglu" in recipe else "mxfp4-silu", **sizes)
    others = list(_others(BOOK, BOOK.recipes[recipe], query, registry))
    roles = {role for _, role, _ in others}
    assert roles == {"w13_weight", "w2_weight", "w13_weight_scale", "w2_weight_scale"}
    for role in roles:
        permutations = [there for _, other, (there, _) in others if other == role]
        here = next(here for _, other, (_, here) in others if other == role)
        assert len(set(permutations)) == len(permutations)
        assert here not in permutations


def test_another_layout_moves_each_byte_to_where_that_layout_has_it() -> None:
    shape = (2, 64, 64)
    plain = torch.arange(2 * 64 * 64).remainder(251).to(torch.uint8).reshape(shape)
    layouts = {name: BOOK.layout(name).bind(*shape) for name in ("sep16", "gui16")}
    seen: dict[str, Any] = {}

    def runner(tensors: dict[str, torch.Tensor], *_: Any) -> torch.Tensor:
        return seen.update(tensors) or plain

    laid = {name: torch.empty_like(plain).flatten() for name in layouts}
    for position in range(0, plain.numel(), 7):
        expert, row, k = position // 4096, position // 64 % 64, position % 64
        for name, bound in layouts.items():
            laid[name][bound.address(expert, row, k)] = plain[expert, row, k]
    full = torch.empty_like(plain).flatten()
    permutation = layouts["sep16"].permutation
    full[:] = torch.tensor([int(plain.flatten()[permutation.source(d)]) for d in range(plain.numel())])
    other: Any = OtherLayout(runner, "w2_weight", layouts["gui16"].permutation, permutation)  # type: ignore[arg-type]
    other({"w2_weight": full.reshape(shape)}, SimpleNamespace(), *[plain] * 3)
    moved = seen["w2_weight"].flatten()
    for position in range(0, plain.numel(), 7):
        address = layouts["gui16"].address(position // 4096, position // 64 % 64, position % 64)
        assert moved[address] == laid["gui16"][address]


def test_figures_tell_right_runs_from_wrong_ones() -> None:
    def answer(error: float | None, spoilt: str = "") -> dict[str, Any]:
        return {"function": "f", "spoilt": spoilt, "result": {"relative_l2": error}}

    answers = [answer(0.01), answer(0.02), answer(0.9, "w2 as sep16"), answer(None), {"function": "f", "refused": "x"}]
    assert _numbers("f", answers) == "f: relative L2 0.01 to 0.02; 1 wrong layouts at least 0.9"
    assert _numbers("g", answers) == "g: no run"
