"""The book's decisions equal an engine's steps byte for byte.

AITER's own functions on a small checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from preshuffle.layouts import apply, prove
from preshuffle.registry import Decision, Query
from support.aiter import engine_steps as do
from support.aiter.aiter_wheel import AiterFunctions
from support.book.strategies import REGISTRY
from support.tensors.plain_layer import checkpoint, torch_shape

Layer = dict[str, Tensor]
Steps = Callable[[Layer, AiterFunctions], Layer]

LAYER: dict[str, Any] = {
    "model": "acme/moe",
    "activation": "Silu",
    "gate_up_order": "GGUU",
    "hidden_size": 192,
    "intermediate_size": 320,
    "num_experts": 3,
    "top_k": 2,
    "bias": False,
    "engine": "atom",
    "arch": "gfx950",
    "tokens": [1],
}
MX: dict[str, Any] = {"weight_dtype": "fp4x2", "quant_type": "per_1x32", "activation_dtype": "fp4x2"}
SWIGLU: dict[str, Any] = {**MX, "activation": "Swiglu", "bias": True, "gate_up_order": "GUGU"}
ITLV = {"env": {"ATOM_MOE_GU_ITLV": "1"}}
PLAIN: dict[str, Any] = {"quant_type": "No", "hidden_size": 256, "intermediate_size": 384}
FP8: dict[str, Any] = {"weight_dtype": "fp8", "activation_dtype": "fp8"}


def decide(**fields: Any) -> Decision:
    return REGISTRY.resolve(Query.parse({**LAYER, **fields}))


def raw(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(torch.uint8).flatten()


def mx_buffers(layer: Layer, align: int, *, gugu: bool = False, fill: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ATOM's padded buffers of an MX layer.

    w13, w2, w13's scale, w2's scale.
    """
    bits = 4 if layer["w13_weight"].dtype == torch.uint8 else 8
    inter, hidden = layer["w13_weight"].shape[1] // 2, layer["w2_weight"].shape[1]
    rows, columns = do.up(inter, align), do.up(hidden, align)
    first = do.merged if gugu else do.in_halves
    return (
        first(layer["w13_weight"], rows, columns * bits // 8),
        do.alone(layer["w2_weight"], columns, rows * bits // 8),
        first(layer["w13_weight_scale"], rows, columns // 32, fill),
        do.alone(layer["w2_weight_scale"], columns, rows // 32, fill),
    )


def biases(layer: Layer, align: int, *, gugu: bool) -> Layer:
    """ATOM's padded biases in fp32, gate and up apart."""
    rows, columns = do.up(layer["w13_bias"].shape[1] // 2, align), do.up(layer["w2_bias"].shape[1], align)
    half = layer["w13_bias"].shape[1] // 2
    w13 = torch.zeros(layer["w13_bias"].shape[0], 2 * rows)
    values = layer["w13_bias"].float()
    pairs = values.view(-1, half, 2).transpose(1, 2) if gugu else values.view(-1, 2, half)
    w13.view(-1, 2, rows)[:, :, :half] = pairs
    w2 = torch.zeros(layer["w2_bias"].shape[0], columns)
    w2[:, : layer["w2_bias"].shape[1]] = layer["w2_bias"].float()
    return {"w13_bias": w13, "w2_bias": w2}


def unquantized(layer: Layer, aiter: AiterFunctions) -> Layer:
    return {role: do.expert_by_expert(tensor, aiter) for role, tensor in layer.items()}


def fp8(layer: Layer, aiter: AiterFunctions) -> Layer:
    weights = {role: do.expert_by_expert(layer[role], aiter) for role in ("w13_weight", "w2_weight")}
    return {**layer, **weights}


def fp8_fnuz(layer: Layer, aiter: AiterFunctions) -> Layer:
    normal = {
        role: do.to_fnuz(tensor)
        if role.endswith("_weight")
        else tensor * 2
        if role.endswith("_weight_scale")
        else tensor
        for role, tensor in layer.items()
    }
    return fp8(normal, aiter)


def per_tensor(layer: Layer, aiter: AiterFunctions, *, fnuz: bool = False) -> Layer:
    scales, w2_scale = (layer[f"{name}_weight_scale"] * (2 if fnuz else 1) for name in ("w13", "w2"))
    w13, w2 = (do.to_fnuz(layer[role]) if fnuz else layer[role] for role in ("w13_weight", "w2_weight"))
    laid = fp8({"w13_weight": do.requantized(w13, scales), "w2_weight": w2}, aiter)
    return {**laid, "w13_weight_scale": scales.amax(1), "w2_weight_scale": w2_scale}


def separated(layer: Layer, aiter: AiterFunctions, *, align: int = 256, tail: int = 0) -> Layer:
    w13, w2, s13, s2 = mx_buffers(layer, align)
    return {
        "w13_weight": aiter.shuffle_weight(w13),
        "w2_weight": aiter.shuffle_weight(w2),
        "w13_weight_scale": do.e8(s13, aiter, 0),
        "w2_weight_scale": do.e8(s2, aiter, tail),
    }


def gpt_oss(layer: Layer, aiter: AiterFunctions) -> Layer:
    w13, w2, s13, s2 = mx_buffers(layer, 256, gugu=True)
    laid = {
        "w13_weight": aiter.shuffle_weight(do.apart(w13)),
        "w2_weight": aiter.shuffle_weight(w2),
        "w13_weight_scale": do.e8(do.apart(s13), aiter, 0),
        "w2_weight_scale": do.e8(s2, aiter, 0),
    }
    return {**laid, **biases(layer, 256, gugu=True)}


def gpt_oss_interleaved(layer: Layer, aiter: AiterFunctions) -> Layer:
    w13, w2, s13, s2 = mx_buffers(layer, 256, gugu=True)
    laid = {
        "w13_weight": aiter.shuffle_weight_a16w4(do.apart(w13), 16, True),
        "w2_weight": aiter.shuffle_weight_a16w4(w2, 16, False),
        "w13_weight_scale": do.e8_gui16(do.apart(s13), aiter),
        "w2_weight_scale": aiter.shuffle_scale_a16w4(s2.reshape(-1, s2.shape[-1]), s2.shape[0], False),
    }
    return {**laid, **biases(layer, 256, gugu=True)}


def interleaved(layer: Layer, aiter: AiterFunctions, *, align: int = 256) -> Layer:
    """Pad K of w2's scale to whole tiles with 0x7F.

    As newer AITER functions do themselves.
    """
    w13, w2, s13, s2 = mx_buffers(layer, align)
    s2 = do.alone(s2, s2.shape[1], do.up(s2.shape[2], 8), 127)
    return {
        "w13_weight": aiter.shuffle_weight_a16w4(w13, 16, True),
        "w2_weight": aiter.shuffle_weight_a16w4(w2, 16, False),
        "w13_weight_scale": do.e8_gui16(s13, aiter),
        "w2_weight_scale": aiter.shuffle_scale_a16w4(s2.reshape(-1, s2.shape[-1]), s2.shape[0], False),
    }


def rows_alternate(layer: Layer, aiter: AiterFunctions) -> Layer:
    """gfx1250: AITER's moe_shuffle_weight is a row interleave and shuffle_weight; moe_shuffle_scale is n32k4."""
    w13, w2, s13, s2 = mx_buffers(layer, 256, gugu=True)
    laid = {
        "w13_weight": aiter.shuffle_weight(do.row_by_row(do.apart(w13))),
        "w2_weight": aiter.shuffle_weight(w2),
        "w13_weight_scale": do.tiles(do.row_by_row(do.apart(s13)), 4),
        "w2_weight_scale": do.tiles(s2, 4),
    }
    bias = biases(layer, 256, gugu=True)
    return {**laid, **bias, "w13_bias": do.row_by_row(bias["w13_bias"].unsqueeze(2)).squeeze(2)}


def decode(layer: Layer, aiter: AiterFunctions) -> Layer:
    w13, w2, s13, s2 = mx_buffers(layer, 256)
    return {
        "w13_weight": aiter.shuffle_weight(w13),
        "w2_weight": aiter.shuffle_weight(w2),
        "w13_weight_scale": do.tiles(s13, 8),
        "w2_weight_scale": do.tiles(s2, 8),
    }


def triton_swiglu(layer: Layer, aiter: AiterFunctions) -> Layer:
    """Keep weights in alternating rows and swizzle scales over them."""
    w13, w2, s13, s2 = mx_buffers(layer, 256, gugu=True)
    scales = {"w13_weight_scale": do.e8(s13, aiter, 0), "w2_weight_scale": do.e8(s2, aiter, 0)}
    bias = biases(layer, 256, gugu=True)
    alternating = do.row_by_row(bias["w13_bias"].unsqueeze(2)).squeeze(2)
    return {"w13_weight": w13, "w2_weight": w2, **scales, **bias, "w13_bias": alternating}


def triton_plain(layer: Layer, aiter: AiterFunctions) -> Layer:
    w13, w2, s13, s2 = mx_buffers(layer, 256)
    return {"w13_weight": w13, "w2_weight": w2, "w13_weight_scale": s13, "w2_weight_scale": s2}


def int4(layer: Layer, aiter: AiterFunctions) -> Layer:
    """Apply AITER's recipe for int4 in groups of 32.

    Shuffle int8 values, pack eight to four bytes, scales in pairs.
    """
    packed: Layer = {}
    for role in ("w13_weight", "w2_weight"):
        values = aiter.shuffle_weight(layer[role]).view(torch.uint8).view(-1, 8) & 0xF
        packed[role] = values[:, :4] | (values[:, 4:] << 4)
    for role in ("w13_weight_scale", "w2_weight_scale"):
        experts, rows, groups = layer[role].shape
        packed[role] = layer[role].transpose(1, 2).reshape(experts, groups // 2, 2, rows).permute(0, 1, 3, 2)
    return packed


def words(layer: Layer, aiter: AiterFunctions) -> Layer:
    """Apply AITER's recipe for int4 scaled by row.

    Shuffle int8 values as int4, pack eight to a word, rearrange nibbles.
    """
    laid = {
        role: do.rearranged(do.words_of(aiter.shuffle_weight(do.values_of(layer[role]), (16, 16), True)))
        for role in ("w13_weight", "w2_weight")
    }
    return {**layer, **laid}


def whole_tiles(layer: Layer, aiter: AiterFunctions) -> Layer:
    """Pad gate and up, and K of w2, to 32 with zeros.

    So are the scales of rows that are not there.
    """
    layer = {
        "w13_weight": do.in_halves(layer["w13_weight"], 192, layer["w13_weight"].shape[2]),
        "w2_weight": do.alone(layer["w2_weight"], layer["w2_weight"].shape[1], 192),
        "w13_weight_scale": do.in_halves(layer["w13_weight_scale"].view(torch.uint8), 192, 4).view(torch.float32),
        "w2_weight_scale": layer["w2_weight_scale"],
    }
    return fp8_fnuz(layer, aiter)


CASES: dict[str, tuple[dict[str, Any], Steps]] = {
    "A1 bf16": ({**PLAIN, "weight_dtype": "bf16", "activation_dtype": "bf16"}, unquantized),
    "A1 fp16": ({**PLAIN, "weight_dtype": "fp16", "activation_dtype": "fp16"}, unquantized),
    "A2 gfx950": ({**FP8, "quant_type": "per_1x128", "hidden_size": 256, "intermediate_size": 384}, fp8),
    "A2 gfx942": (
        {**FP8, "quant_type": "per_1x128", "hidden_size": 256, "intermediate_size": 384, "arch": "gfx942"},
        fp8_fnuz,
    ),
    "A3": ({**FP8, "quant_type": "per_1x32", "hidden_size": 256}, interleaved),
    "A4 gfx950": ({**FP8, "quant_type": "per_Token"}, fp8),
    "A4 gfx942": ({**FP8, "quant_type": "per_Token", "arch": "gfx942"}, fp8_fnuz),
    "A5 gfx950": ({**FP8, "quant_type": "per_Tensor"}, per_tensor),
    "A5 gfx942": (
        {**FP8, "quant_type": "per_Tensor", "arch": "gfx942"},
        lambda layer, aiter: per_tensor(layer, aiter, fnuz=True),
    ),
    "A6 block": (
        {**FP8, "quant_type": "per_1x128", "hidden_size": 256, "intermediate_size": 384}
        | {"producer": "compressed-tensors"},
        fp8,
    ),
    "A6 tensor": ({**FP8, "quant_type": "per_Tensor", "producer": "compressed-tensors"}, per_tensor),
    "A6 tensor gfx942": (
        {**FP8, "quant_type": "per_Tensor", "producer": "compressed-tensors", "arch": "gfx942"},
        lambda layer, aiter: per_tensor(layer, aiter, fnuz=True),
    ),
    "A7 Silu": (MX, separated),
    "A7 gpt-oss": (SWIGLU, gpt_oss),
    "A7 padded to 128": (
        {**MX, "model": "deepseek_v4", "hidden_size": 256, "intermediate_size": 384},
        lambda layer, aiter: separated(layer, aiter, align=128, tail=127),
    ),
    "A8 Silu": ({**MX, **ITLV}, interleaved),
    "A8 padded to 128": (
        {**MX, **ITLV, "model": "deepseek_v4", "hidden_size": 256, "intermediate_size": 384},
        lambda layer, aiter: interleaved(layer, aiter, align=128),
    ),
    "A8 gpt-oss": ({**SWIGLU, **ITLV}, gpt_oss_interleaved),
    "A9": ({**SWIGLU, **ITLV, "arch": "gfx1250"}, rows_alternate),
    "A10": ({**MX, "arch": "gfx1250", "env": {"ATOM_USE_TRITON_MOE_DECODE": "1"}}, decode),
    "A11 Swiglu": ({**SWIGLU, "env": {"ATOM_USE_TRITON_MOE": "1"}}, triton_swiglu),
    "A11 gfx942 Silu": ({**MX, "arch": "gfx942", "env": {"ATOM_USE_TRITON_MOE": "1"}}, triton_plain),
    "A12": ({**MX, "env": {"--moe-backend": "mega"}}, interleaved),
    "MXFP8": (
        {**FP8, "engine": None, "quant_type": "per_1x32", "hidden_size": 256, "intermediate_size": 512},
        interleaved,
    ),
    "int4 in groups": (
        {"engine": None, "weight_dtype": "i4x2", "quant_type": "per_1x32", "activation_dtype": "bf16"}
        | {"hidden_size": 256, "intermediate_size": 384},
        int4,
    ),
    "int4 by row": (
        {"engine": None, "weight_dtype": "i4x2", "quant_type": "per_Token", "activation_dtype": "fp8"}
        | {"hidden_size": 256},
        words,
    ),
    "fp8 tensor": ({**FP8, "engine": None, "quant_type": "per_Tensor"}, per_tensor),
    "fp8 tensor gfx942": (
        {**FP8, "engine": None, "quant_type": "per_Tensor", "arch": "gfx942"},
        lambda layer, aiter: per_tensor(layer, aiter, fnuz=True),
    ),
    "fp8 channel of no whole tile": (
        {**FP8, "engine": None, "quant_type": "per_Token", "intermediate_size": 176, "arch": "gfx942"},
        whole_tiles,
    ),
    "fp8 channel gfx942": ({**FP8, "engine": None, "quant_type": "per_Token", "arch": "gfx942"}, fp8_fnuz),
}


@pytest.mark.parametrize("name", CASES)
def test_the_bytes_are_those_of_the_engines_steps(name: str, aiter: AiterFunctions) -> None:
    query, steps = CASES[name]
    decision = decide(**query)
    layer = checkpoint(decision)
    doubled = 2 if decision.tensors["w2_weight"].dtype == "fp8_e4m3fnuz" else 1
    inputs = {role: tensor.max().view(1) * doubled for role, tensor in layer.items() if role.endswith("_input_scale")}
    expected = inputs | steps({role: tensor.clone() for role, tensor in layer.items()}, aiter)
    apply(layer, decision, backend="native", allow={finding.code for finding in decision.findings})
    assert layer.keys() == expected.keys()
    for role, tensor in layer.items():
        assert torch.equal(raw(tensor), raw(expected[role])), role
        if "i4x2" != (dtype := decision.tensors[role].dtype):  # type: ignore[index]
            decided = decision.tensors[role]  # type: ignore[index]
            assert tuple(tensor.shape) == torch_shape(decided.passed_shape or decided.physical_shape, dtype), role


@pytest.mark.parametrize("name", CASES)
def test_and_they_are_proven(name: str) -> None:
    decision = decide(**CASES[name][0])
    layer = checkpoint(decision, seed=1)
    plain = {role: tensor.clone() for role, tensor in layer.items()}
    apply(layer, decision, backend="native", allow={finding.code for finding in decision.findings})
    assert [(check.name, check.detail) for check in prove(plain, layer, decision) if not check.ok] == []
    weights = layer["w13_weight"].view(torch.uint8)
    weights[-1, 0, 0] ^= 1
    assert "bytes" in {check.name for check in prove(plain, layer, decision) if not check.ok}
