"""One rank's tensors of a decision as a checkpoint has them, with random values."""

from __future__ import annotations

import torch
from torch import Tensor

from preshuffle.registry import Decision
from support.aiter import engine_steps as do

Layer = dict[str, Tensor]
FP8_BYTES = {"fp8_e4m3fn", "fp8_e4m3fnuz"}


def torch_shape(shape: tuple[int, ...], dtype: str) -> tuple[int, ...]:
    """Torch's shape of one in values: an element of fp4x2 holds two."""
    return (*shape[:-1], shape[-1] // 2) if dtype == "fp4x2" else shape


def checkpoint(decision: Decision, *, seed: int = 0) -> Layer:
    """One rank's tensors as a checkpoint has them: fp8 as e4m3fn, gate and up with a scale each where one is made."""
    random = torch.Generator().manual_seed(seed)
    layer: Layer = {}
    for role, decided in decision.tensors.items():
        shape = torch_shape(decided.logical_shape, decided.dtype)
        if role.endswith("_bias"):
            layer[role] = torch.randn(shape, generator=random).to(torch.bfloat16)
        elif decided.dtype == "i4x2":
            values = torch.randint(-8, 8, shape, dtype=torch.int8, generator=random)
            layer[role] = values if decided.steps else do.rearranged(do.words_of(values))
        elif decided.dtype in FP8_BYTES:
            values = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
            values[(values & 0x7F) == 0x7F] = 0x11  # no NaN
            layer[role] = values.view(torch.float8_e4m3fn)
        elif decided.dtype in ("bf16", "fp16"):
            layer[role] = torch.randn(shape, generator=random).to(
                getattr(torch, {"bf16": "bfloat16"}.get(decided.dtype, "float16"))
            )
        elif decided.dtype == "fp32":
            shape = (shape[0], 2) if "requantize_max" in decided.steps else shape
            shape = (decision.tensors["w2_weight"].logical_shape[0],) if "reduce_max" in decided.steps else shape
            layer[role] = torch.rand(shape, generator=random) + 0.5
        else:
            low, high = (100, 140) if role.endswith("_scale") else (0, 256)
            layer[role] = torch.randint(low, high, shape, dtype=torch.uint8, generator=random)
    return layer
