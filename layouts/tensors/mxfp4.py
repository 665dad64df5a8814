"""Exact decoding of MXFP4: fp4 (e2m1) codes and e8m0 scales."""

from __future__ import annotations

from typing import Final

import torch

E2M1: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Magnitudes of the eight codes; the fourth bit is the sign (OCP Microscaling Formats 1.0)."""


def decode_fp4(codes: torch.Tensor) -> torch.Tensor:
    """Decode packed fp4 codes to float64.

    From ``uint8 [..., n]`` to ``float64 [..., 2n]``, the low nibble first.
    """
    nibbles = torch.tensor([*E2M1, *(-value for value in E2M1)], dtype=torch.float64, device=codes.device)
    byte = torch.arange(256, device=codes.device)
    # A byte's two values are one complex number: what is looked up takes memory for codes and values alone
    pairs = torch.view_as_complex(torch.stack([nibbles[byte & 0xF], nibbles[byte >> 4]], dim=-1))
    values = torch.view_as_real(pairs.index_select(0, codes.flatten().int()))
    return values.view(*codes.shape[:-1], 2 * codes.shape[-1])


def decode_e8m0(codes: torch.Tensor) -> torch.Tensor:
    """Decode e8m0 scales to float64.

    Code c is 2 to the power c - 127; input ``uint8``, any shape.
    """
    return torch.exp2(codes.to(torch.float64) - 127)


def dequantize(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Dequantize MXFP4: codes times scales.

    ``uint8 [rows, K/2]`` fp4 pairs and ``uint8 [rows, K/32]`` scales give ``float64 [rows, K]``.
    """
    return decode_fp4(weight) * decode_e8m0(scale).repeat_interleave(32, dim=-1)
