"""Numeric values of weights and scales in float64.

Every dtype of the book, and every way in which values share a scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from preshuffle.layouts.tensors.mxfp4 import decode_e8m0, decode_fp4
from preshuffle.registry.base.words import BLOCK_ROWS, GROUP, QuantType, TensorDtype

_NIBBLES: Final = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of its eight values each nibble of a word of int4 holds, the lowest first (AITER's rearrange_4bit_elements)."""


def _viewed(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda data: data.contiguous().view(dtype).to(torch.float32).to(torch.float64)


def _words(data: torch.Tensor) -> torch.Tensor:
    nibbles = torch.stack([data & 0xF, data >> 4], dim=-1).flatten(-2).to(torch.int8)
    signed = torch.where(nibbles > 7, nibbles - 16, nibbles)
    signed = signed.view(*signed.shape[:-1], -1, len(_NIBBLES))
    values = torch.empty_like(signed)
    values[..., list(_NIBBLES)] = signed
    return values.flatten(-2).to(torch.float64)


_DECODERS: Final[dict[TensorDtype, Callable[[torch.Tensor], torch.Tensor]]] = {
    "bf16": _viewed(torch.bfloat16),
    "fp16": _viewed(torch.float16),
    "fp32": _viewed(torch.float32),
    "fp8_e4m3fn": _viewed(torch.float8_e4m3fn),
    "fp8_e4m3fnuz": _viewed(torch.float8_e4m3fnuz),
    "i8": _viewed(torch.int8),
    "i4x2": _words,
    "fp4x2": decode_fp4,
    "e8m0": decode_e8m0,
    "uint8": decode_e8m0,
}


def decode_values(data: torch.Tensor, dtype: TensorDtype) -> torch.Tensor:
    """Decode the bytes of one dtype to float64.

    ``uint8 [rows, K bytes]`` give ``float64 [rows, K]``.
    """
    return _DECODERS[dtype](data)


def expand_scales(scales: torch.Tensor, quant_type: QuantType, rows: int, k: int, halves: int) -> torch.Tensor:
    """Expand scales to one per value.

    Returns ``[rows, K]`` or what broadcasts to it.

    Args:
        scales: one expert's, ``[scale rows, scale K]``, those of gate first.
        quant_type: what shares one.
        rows: of the weight, gate and up together.
        k: values of a row.
        halves: 2 where rows are gate's and up's; blocks of rows never hold rows of both.
    """
    scales, group = _by_row(scales, quant_type, rows, halves), GROUP.get(quant_type, 1)
    return scales.repeat_interleave(group, -1)[:, :k] if group > 1 else scales


def multiply_by_scales(values: torch.Tensor, scales: torch.Tensor, quant_type: QuantType, halves: int) -> torch.Tensor:
    """Multiply values in place by the scales that they share.

    Whole groups take no memory for one scale per value.

    Args:
        values: one expert's, ``float64 [rows, K]``, those of gate first.
        scales: one expert's, as `expand_scales` takes them.
        quant_type: what shares one.
        halves: 2 where rows are gate's and up's.
    """
    (rows, k), group = values.shape, GROUP.get(quant_type, 1)
    by_row = _by_row(scales, quant_type, rows, halves)
    if group > 1 and by_row.shape[-1] * group == k:
        values.view(rows, k // group, group).mul_(by_row.unsqueeze(-1))
        return values
    return values.mul_(expand_scales(scales, quant_type, rows, k, halves))


def _by_row(scales: torch.Tensor, quant_type: QuantType, rows: int, halves: int) -> torch.Tensor:
    """Expand scales to as many rows as the weight has."""
    if quant_type == "per_Tensor":
        return scales.view(-1, 1).repeat_interleave(rows // scales.numel(), 0)
    block = BLOCK_ROWS.get(quant_type, 1)
    if block == 1:
        return scales
    by_half = scales.view(halves, -1, scales.shape[-1]).repeat_interleave(block, 1)[:, : rows // halves]
    return by_half.reshape(rows, -1)
