"""Values of golden layers: plain tensors of every dtype.

And of every kind of scale; uneven, so that no mistake cancels out.

Gate and up differ in size, what shares a scale differs from what shares the next one, and pre-activations are of order
1 to 10, so that activations bend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from preshuffle.layouts.loader import source_shape, torch_shape
from preshuffle.registry import Decision, LayoutError, TensorDecision
from preshuffle.registry.base.words import Step

_GATE, _UP, _DOWN = (-5, -3), (-4, -2), (-8, -5)
"""Exponents of e8m0 scales, for values of MXFP4's size."""
_GATE_BIAS, _UP_BIAS = (1.0, 1.0), (-3.0, 2.0)
_DOWN_BIAS = 8.0
_FP4_SIZE: Final = 2.9
"""Root mean square of random fp4 values; the exponents above are meant for them."""
_FP8_SPREAD: Final = 24.0


_SECOND_LEVEL: Final[dict[Step, tuple[int, ...]]] = {"fold": (), "fold_max": (2,)}
"""Shape of the scale of a scale, per expert, by the step that folds it."""


def plain_values(decision: Decision, seed: int = 0) -> dict[str, torch.Tensor]:
    """Create one rank's tensors as its checkpoint holds them.

    Second-level scales are made where a step folds them; input scales are left out.

    Raises:
        LayoutError: a tensor is of a dtype that no golden layer has.
    """
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for role, decided in decision.tensors.items():
        w13, alternating = role.startswith("w13"), decided.source_order == "GUGU"
        if role.endswith("_weight"):
            tensors[role] = _weight(role, decided, decision, random)
        elif role.endswith("_weight_scale"):
            tensors[role] = _scale(role, decided, decision, random)
            for step, shape in _SECOND_LEVEL.items():
                if step in decided.steps:
                    sizes = (decided.logical_shape[0], *shape)
                    tensors[f"{role}_2"] = 2.0 ** torch.randint(-1, 2, sizes, generator=random)
        elif role.endswith("_bias"):
            tensors[role] = _bias(torch_shape(decided.logical_shape, decided), w13, alternating, random)
    return tensors


def _weight(role: str, decided: TensorDecision, decision: Decision, random: torch.Generator) -> torch.Tensor:
    shape = decided.logical_shape
    if decided.dtype in ("bf16", "fp16"):
        return _unscaled(role, decided, random)
    make = _CODES.get(decided.dtype)
    if make is None:
        raise LayoutError(f"no golden layer has {role} in {decided.dtype}; valid: bf16, fp16, {', '.join(_CODES)}")
    return make(shape, decided, random)


def _fp4(shape: tuple[int, ...], decided: TensorDecision, random: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 256, torch_shape(shape, decided), dtype=torch.uint8, generator=random)


def _fp8(shape: tuple[int, ...], decided: TensorDecision, random: torch.Generator) -> torch.Tensor:
    values = torch.randn(shape, generator=random) * _FP8_SPREAD
    source = decided.dtype if "fnuz" not in decided.steps else "fp8_e4m3fn"
    return values.clamp(-200, 200).to(torch.float8_e4m3fnuz if source == "fp8_e4m3fnuz" else torch.float8_e4m3fn)


def _int4(shape: tuple[int, ...], decided: TensorDecision, random: torch.Generator) -> torch.Tensor:
    if "pack_int4" in decided.steps:
        shape = source_shape(shape, decided, torch.int8)
        return torch.randint(-8, 8, shape, dtype=torch.int8, generator=random)
    words = torch_shape(shape, decided, torch.int32)
    return torch.randint(-(1 << 31), 1 << 31, words, generator=random).to(torch.int32)


def _int8(shape: tuple[int, ...], decided: TensorDecision, random: torch.Generator) -> torch.Tensor:
    return torch.randint(-127, 128, shape, dtype=torch.int8, generator=random)


_CODES: Final[dict[str, Callable[[tuple[int, ...], TensorDecision, torch.Generator], torch.Tensor]]] = {
    "fp4x2": _fp4,
    "fp8_e4m3fn": _fp8,
    "fp8_e4m3fnuz": _fp8,
    "i4x2": _int4,
    "i8": _int8,
}
_SIZE: Final = {"fp4x2": _FP4_SIZE, "fp8_e4m3fn": _FP8_SPREAD, "fp8_e4m3fnuz": _FP8_SPREAD, "i4x2": 4.6, "i8": 73.0}
"""Root mean square of the values above."""


def _unscaled(role: str, decided: TensorDecision, random: torch.Generator) -> torch.Tensor:
    """Return values without scales, each row of its own size."""
    experts, rows, k = decided.logical_shape
    exponents = _exponents(role, decided, (experts, rows, 1), random)
    values = torch.randn(experts, rows, k, generator=random) * _FP4_SIZE * torch.exp2(exponents)
    return values.to(torch.bfloat16 if decided.dtype == "bf16" else torch.float16)


def _scale(role: str, decided: TensorDecision, decision: Decision, random: torch.Generator) -> torch.Tensor:
    weight = decision.tensors[role.removesuffix("_scale")]  # type: ignore[index]
    shape = decided.logical_shape
    if "requantize_max" in decided.steps:  # gate and up come with one each, a power of two apart: nothing is rounded
        shape = (shape[0], 2)
    exponents = _exponents(role, decided, shape, random)
    if decided.dtype in ("e8m0", "uint8"):
        size = _FP4_SIZE / _SIZE[weight.dtype]
        shift = round(float(torch.tensor(size).log2()))
        return (exponents + 127 + shift).to(torch.uint8)
    if decision.call.quant_type != "per_Tensor":
        exponents = exponents + torch.rand(shape, generator=random) - 0.5
    numbers = torch.exp2(exponents) * (_FP4_SIZE / _SIZE[weight.dtype])
    if decision.call.quant_type == "per_Tensor":
        numbers = torch.exp2(numbers.log2().round())
    return numbers.to(torch.bfloat16) if decided.dtype == "bf16" else numbers.to(torch.float32)


def _exponents(role: str, decided: TensorDecision, shape: tuple[int, ...], random: torch.Generator) -> torch.Tensor:
    """Return whole powers of two in a scale's shape.

    Within the bounds of gate, up or down.
    """

    def between(bounds: tuple[int, int], *sizes: int) -> torch.Tensor:
        low, high = bounds
        return torch.randint(low, high + 1, sizes, generator=random).to(torch.float32)

    if not role.startswith("w13"):
        return between(_DOWN, *shape)
    if len(shape) == 2:
        return torch.cat([between(_GATE, shape[0], shape[1] // 2), between(_UP, shape[0], shape[1] // 2) + 1], dim=1)
    half = (shape[0], shape[1] // 2, shape[2])
    return join_gate_up(between(_GATE, *half), between(_UP, *half), decided.source_order == "GUGU")


def _bias(shape: tuple[int, ...], w13: bool, alternating: bool, random: torch.Generator) -> torch.Tensor:
    if not w13:
        return (torch.randn(shape, generator=random) * _DOWN_BIAS).to(torch.bfloat16)
    half = (shape[0], shape[1] // 2)
    gate, up = (torch.randn(half, generator=random) * size + mean for mean, size in (_GATE_BIAS, _UP_BIAS))
    return join_gate_up(gate, up, alternating).to(torch.bfloat16)


def join_gate_up(gate: torch.Tensor, up: torch.Tensor, alternating: bool) -> torch.Tensor:
    """Join rows of gate and up as a checkpoint has them."""
    return torch.stack([gate, up], dim=2).flatten(1, 2) if alternating else torch.cat([gate, up], dim=1)


def swap_gate_up(tensor: torch.Tensor, alternating: bool) -> torch.Tensor:
    """Return rows with gate's and up's exchanged."""
    half = tensor.shape[1] // 2
    if not alternating:
        return torch.cat([tensor[:, half:], tensor[:, :half]], dim=1)
    return torch.stack([tensor[:, 1::2], tensor[:, 0::2]], dim=2).flatten(1, 2)
