"""MX activations in plain torch: 32 values share a power of two."""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 32
_LARGEST = {"fp8": 448.0, "fp4": 6.0}
_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def mx_fp8(values: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize to e4m3: values ``[rows, K]`` and e8m0 scales ``[rows, K / 32]``."""
    scaled, codes = _scaled(values, "fp8")
    return scaled.to(torch.float8_e4m3fn), codes


def mx_fp4(values: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize to e2m1, with e8m0 scales.

    Two values to a byte, ``[rows, K / 2]``, and scales ``[rows, K / 32]``.
    """
    scaled, codes = _scaled(values, "fp4")
    levels = torch.tensor(_FP4, device=values.device)
    nearest = (scaled.abs()[..., None] - levels).abs().argmin(-1)
    nibbles = (nearest + 8 * (scaled < 0)).to(torch.uint8)
    return nibbles[:, 0::2] | nibbles[:, 1::2] << 4, codes


def _scaled(values: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """Return values over their group's scale, none beyond the largest, and the scales' codes."""
    groups = values.float().unflatten(-1, (-1, GROUP))
    largest = groups.abs().amax(-1, keepdim=True).clamp(min=2.0**-100)
    exponent = torch.log2(largest / _LARGEST[dtype]).ceil()
    return (groups / torch.exp2(exponent)).flatten(-2), (exponent[..., 0] + 127).to(torch.uint8)
