"""What an engine's loader does to one layer, step by step and a tensor at a time, with AITER's own functions.

It shares nothing with the product: allocation, row order, padding, values and bytes are done here as the engines are
described to do them. Tensors are a dict by role, as `apply` takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from support.aiter.aiter_wheel import AiterFunctions
from support.tensors.mxfp4 import random_bytes

Tensors = dict[str, Tensor]
GROUP = 32


@dataclass(frozen=True, slots=True)
class Steps:
    """One loader.

    Attributes:
        rows: what it does to the rows of w13 before anything else: "deinterleave", "interleave", or "keep turns" where
            gate and up rows alternate already and go on doing so.
        pads: multiples of the intermediate (each half) and of the hidden size.
        fill: the byte in which its scale buffers start, and what stands for AITER's uninitialised tails.
        w13: AITER's function for w13 and its scale: "sw", "gui", "gurow" or "plain".
        scales: how scales lie where that does not follow from `w13`: "n32k4", "n32k8", "e8" or "plain".
        w2_scales: the same for w2 alone.
        values: what it does to values: "fnuz", "requantize", "fold", "fold_max", "pack".
        bias: whether it converts biases.
    """

    rows: str = ""
    pads: tuple[int, int] = (1, 1)
    fill: int = 0
    w13: str = "sw"
    scales: str = ""
    w2_scales: str = ""
    values: tuple[str, ...] = ()
    bias: bool = False


def run(aiter: AiterFunctions, layer: Tensors, steps: Steps) -> Tensors:
    """Return the layer's tensors as the kernel gets them."""
    tensors = {role: tensor.clone() for role, tensor in layer.items()}
    for value in steps.values:
        if value in VALUES:
            tensors = VALUES[value](tensors)
    for role in tensors:
        if role.startswith("w13") and tensors[role].dim() > 1:
            tensors[role] = _rows(tensors[role], steps.rows)
        tensors[role] = _allocated(role, tensors[role], steps)
    for role, tensor in tensors.items():
        if role.endswith("_weight_scale") and tensor.dtype in (torch.uint8, torch.bfloat16):
            tensors[role] = _scale(aiter, role, tensor, steps)
        elif role.endswith("_weight"):
            laid = _weight(aiter, role, tensor, steps)
            tensors[role] = _packed(laid) if "pack" in steps.values else laid
        elif role.endswith("_bias"):
            tensors[role] = tensor.float()
        elif role.endswith("_input_scale"):
            tensors[role] = tensor.max().view(1)
    return tensors


def _rows(tensor: Tensor, how: str) -> Tensor:
    """Change the order of w13's rows: g0 u0 g1 u1 … to all gates, then all ups, or back."""
    if how not in ("deinterleave", "interleave"):
        return tensor
    experts, rows, *rest = tensor.shape
    cut = (experts, rows // 2, 2, *rest) if how == "deinterleave" else (experts, 2, rows // 2, *rest)
    return tensor.view(cut).transpose(1, 2).reshape(tensor.shape)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _allocated(role: str, tensor: Tensor, steps: Steps) -> Tensor:
    """Copy a tensor into a padded buffer; gate and up each get their padding, together where they are in turns."""
    if steps.pads == (1, 1) or tensor.dim() < 2:
        return tensor
    intermediate, hidden = steps.pads
    scale, w13 = role.endswith("_scale"), role.startswith("w13")
    row, column = (intermediate, hidden) if w13 else (hidden, intermediate)
    per_row = scale and tensor.shape[-1] == 1  # K of such a scale is no dimension
    column = 1 if per_row else max(1, column // (GROUP if scale else 2 if tensor.dtype == torch.uint8 else 1))
    turns = w13 and steps.rows in ("interleave", "keep turns")
    parts = [
        _grown(part, 2 * row if turns else row, column, steps.fill if scale else 0)
        for part in tensor.chunk(2 if w13 and not turns else 1, dim=1)
    ]
    return torch.cat(parts, dim=1)


def _grown(part: Tensor, row: int, column: int, fill: int) -> Tensor:
    below = _up(part.shape[1], row) - part.shape[1]
    if part.dim() == 2:
        return pad(part, (0, below), value=fill)
    return pad(part, (0, _up(part.shape[2], column) - part.shape[2], 0, below), value=fill)


def _weight(aiter: AiterFunctions, role: str, tensor: Tensor, steps: Steps) -> Tensor:
    if steps.w13 == "plain":
        return tensor
    if steps.w13 == "gui":
        return aiter.shuffle_weight_a16w4(tensor, 16, role.startswith("w13"))
    if steps.w13 == "gurow" and role.startswith("w13"):
        tensor = _rows(tensor, "interleave").contiguous()
    return aiter.shuffle_weight(tensor, (16, 16))


def _scale(aiter: AiterFunctions, role: str, tensor: Tensor, steps: Steps) -> Tensor:
    """Lay a scale out.

    AITER fills the tail with 127 where gate and up interleave (since aiter#4130), else it leaves it uninitialised.
    """
    how = (
        (steps.w2_scales if role.startswith("w2") else "")
        or steps.scales
        or {"sw": "e8", "gui": "gui", "gurow": "gurow", "plain": "plain"}[steps.w13]
    )
    experts = tensor.shape[0]
    if how == "plain":
        return tensor
    if how == "pairs":  # [experts, groups, rows] in the engines
        grouped = tensor.transpose(1, 2)
        return grouped.reshape(experts, -1, 2, tensor.shape[1]).transpose(2, 3).contiguous()
    if how in ("n32k4", "n32k8", "gurow"):
        rows = _rows(tensor, "interleave") if how == "gurow" and role.startswith("w13") else tensor
        width = 8 if how == "n32k8" else 4
        return rows.reshape(experts, -1, 32, tensor.shape[2] // width, width).transpose(2, 3).contiguous()
    flat = tensor.reshape(-1, tensor.shape[2])
    if how == "gui":
        return aiter.shuffle_scale_a16w4(_tailed(flat, 1, 127), experts, role.startswith("w13"))
    return aiter.e8m0_shuffle(_tailed(flat, 256, steps.fill))


def _tailed(flat: Tensor, rows: int, fill: int) -> Tensor:
    return pad(flat, (0, -flat.shape[1] % 8, 0, -flat.shape[0] % rows), value=fill)


def _packed(tensor: Tensor) -> Tensor:
    """Pack signed int8 values: of each 8, value i is in the low bits of byte i and value i + 4 in the high ones."""
    eights = tensor.contiguous().view(torch.uint8).view(-1, 2, 4)
    return ((eights[:, 1] << 4) | (eights[:, 0] & 15)).flatten()


def _fnuz(tensors: Tensors) -> Tensors:
    """e4m3fn to e4m3fnuz: the bytes stay, but negative zero, and mean half as much; scales double."""
    done = dict(tensors)
    for role in ("w13_weight", "w2_weight"):
        data = tensors[role].view(torch.int8)
        done[role] = torch.where(data == -128, 0, data).view(torch.float8_e4m3fnuz)
        done[f"{role}_scale"] = tensors[f"{role}_scale"] * 2
    return {role: tensor * 2 if role.endswith("_input_scale") else tensor for role, tensor in done.items()}


def _requantize(tensors: Tensors) -> Tensors:
    """Give gate and up of each expert the larger of their two scales."""
    weight, scale = tensors["w13_weight"].clone(), tensors["w13_weight_scale"]
    largest = scale.max(dim=1).values
    rows = weight.shape[1] // 2
    for expert in range(weight.shape[0]):
        for half in range(2):
            part = weight[expert, half * rows : (half + 1) * rows]
            part.copy_((part.float() * scale[expert, half] / largest[expert]).to(weight.dtype))
    return {**tensors, "w13_weight": weight, "w13_weight_scale": largest}


def _fold(tensors: Tensors) -> Tensors:
    """Multiply the scale of an expert (of a half of w13) into the scales of its rows."""
    done = dict(tensors)
    for role in ("w13_weight_scale", "w2_weight_scale"):
        scale, second = tensors[role], done.pop(f"{role}_2")
        halves = second.shape[1] if second.dim() == 2 else 1
        rows = scale.view(scale.shape[0], halves, -1)
        done[role] = (rows * second.view(scale.shape[0], halves, 1)).view(scale.shape)
    return done


def _fold_max(tensors: Tensors) -> Tensors:
    """Requantize gate and up with the larger of their two scales, then fold that one into the scales of the rows."""
    pairs = {**tensors, "w13_weight_scale": tensors["w13_weight_scale_2"]}
    done = _requantize(pairs)
    largest = done["w13_weight_scale"]
    return _fold({**done, "w13_weight_scale": tensors["w13_weight_scale"], "w13_weight_scale_2": largest})


VALUES: dict[str, Callable[[Tensors], Tensors]] = {
    "fnuz": _fnuz,
    "requantize": _requantize,
    "fold": _fold,
    "fold_max": _fold_max,
}


def random_layer(query: dict[str, Any], values: tuple[str, ...], *, inputs: bool = False) -> Tensors:
    """Return random tensors of one layer, unsharded, as the checkpoint (or the recipe's `source`) has them.

    Args:
        query: sizes, dtypes and whether there are biases.
        values: the steps on values that will be done.
        inputs: whether there are static scales of the activations.
    """
    experts, hidden, intermediate = query["num_experts"], query["hidden_size"], query["intermediate_size"]
    layer: Tensors = {}
    for number, (role, rows, k) in enumerate((("w13", 2 * intermediate, hidden), ("w2", hidden, intermediate))):
        layer[f"{role}_weight"] = _random_weight(query, (experts, rows, k), values, number)
        scale = _random_scale(query, (experts, rows, k), values, number + 2, halves=2 - number)
        layer |= {f"{role}_weight_{name}": tensor for name, tensor in scale.items()}
        if inputs:
            layer[f"{role}_input_scale"] = random_bytes(experts, seed=number, low=1).float() / 32
        if query.get("bias"):
            random = torch.Generator().manual_seed(number)
            layer[f"{role}_bias"] = torch.randn(experts, rows, generator=random).to(torch.bfloat16)
    return layer


def _random_weight(query: dict[str, Any], shape: tuple[int, int, int], values: tuple[str, ...], seed: int) -> Tensor:
    experts, rows, k = shape
    dtype = query["weight_dtype"]
    if dtype in ("bf16", "fp16"):
        return random_bytes(experts, rows, 2 * k, seed=seed).view(torch.bfloat16 if dtype == "bf16" else torch.float16)
    if dtype == "fp8":
        data = random_bytes(experts, rows, k, seed=seed)
        return torch.where(data & 127 == 127, 0, data).view(torch.float8_e4m3fn)
    if "pack" in values:
        return random_bytes(experts, rows, k, seed=seed, high=16).to(torch.int8) - 8
    if dtype == "i4x2":
        return random_bytes(experts, rows, k // 2, seed=seed).view(torch.int32)
    return random_bytes(experts, rows, k // 2, seed=seed)


def _random_scale(
    query: dict[str, Any], shape: tuple[int, int, int], values: tuple[str, ...], seed: int, *, halves: int
) -> Tensors:
    experts, rows, k = shape
    kind = query["quant_type"]
    if kind == "No":
        return {}
    if kind == "per_1x32":
        codes = random_bytes(experts, rows, k // GROUP, seed=seed, low=100, high=150)
        return {"scale": codes.to(torch.bfloat16) / 64 if "pack" in values else codes}
    sizes = {"per_1x128": (rows // 128, k // 128), "per_Token": (rows, 1)}
    powers = torch.exp2(random_bytes(experts, halves, seed=seed + 9, high=4).float() - 2)
    if kind == "per_Tensor":
        return {"scale": powers if halves == 2 else powers[:, 0]}
    scale = random_bytes(experts, *sizes[kind], seed=seed, low=1).float() / 16
    return {"scale": scale, "scale_2": powers} if {"fold", "fold_max"} & set(values) else {"scale": scale}
