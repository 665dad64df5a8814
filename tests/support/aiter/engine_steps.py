"""What engines do to a layer, step by step in torch and with AITER's functions, for byte comparisons.

A buffer of the padded size is filled as a loader fills it, rows are put into order, AITER's functions lay it out.
Shapes are torch's: ``[E, rows, K]`` with K in bytes (in groups for scales).
"""

from __future__ import annotations

import torch
from torch import Tensor

from support.aiter.aiter_wheel import AiterFunctions


def up(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple


def in_halves(plain: Tensor, rows: int, k: int, fill: int = 0) -> Tensor:
    """Gate and up rows (GGUU), each at the beginning of its half of a padded buffer."""
    experts, live = plain.shape[0], plain.shape[1] // 2
    buffer = torch.full((experts, 2 * rows, k), fill, dtype=torch.uint8).view(plain.dtype)
    for half in range(2):
        buffer[:, half * rows : half * rows + live, : plain.shape[2]] = plain[:, half * live : (half + 1) * live]
    return buffer


def merged(plain: Tensor, rows: int, k: int, fill: int = 0) -> Tensor:
    """Alternating rows (GUGU) as the checkpoint has them, at the beginning of a padded buffer."""
    buffer = torch.full((plain.shape[0], 2 * rows, k), fill, dtype=torch.uint8).view(plain.dtype)
    buffer[:, : plain.shape[1], : plain.shape[2]] = plain
    return buffer


def alone(plain: Tensor, rows: int, k: int, fill: int = 0) -> Tensor:
    """Rows of w2 in a padded buffer."""
    buffer = torch.full((plain.shape[0], rows, k), fill, dtype=torch.uint8).view(plain.dtype)
    buffer[:, : plain.shape[1], : plain.shape[2]] = plain
    return buffer


def apart(rows: Tensor) -> Tensor:
    """GUGU to GGUU, as ATOM's gpt-oss does before the layout."""
    experts, n, k = rows.shape
    return rows.view(experts, n // 2, 2, k).permute(0, 2, 1, 3).reshape(experts, n, k)


def row_by_row(rows: Tensor) -> Tensor:
    """GGUU to GUGU: AITER's interleave_gate_up_rows."""
    half = rows.shape[1] // 2
    return torch.stack([rows[:, :half], rows[:, half:]], 2).flatten(1, 2).contiguous()


def expert_by_expert(weights: Tensor, aiter: AiterFunctions) -> Tensor:
    """ATOM's shuffle_weights: each expert in place."""
    result = weights.clone()
    for expert in range(weights.shape[0]):
        result[expert].copy_(aiter.shuffle_weight(weights[expert]))
    return result


def e8(scales: Tensor, aiter: AiterFunctions, fill: int) -> Tensor:
    """AITER's e8m0_shuffle of a flattened buffer that was padded to whole tiles with defined bytes."""
    flat = scales.reshape(-1, scales.shape[-1])
    buffer = torch.full((up(flat.shape[0], 256), up(flat.shape[1], 8)), fill, dtype=torch.uint8)
    buffer[: flat.shape[0], : flat.shape[1]] = flat
    return aiter.e8m0_shuffle(buffer)


def e8_gui16(scales: Tensor, aiter: AiterFunctions) -> Tensor:
    """AITER's shuffle_scale_a16w4 with gate and up interleaved."""
    return aiter.shuffle_scale_a16w4(scales.reshape(-1, scales.shape[-1]), scales.shape[0], True)


def tiles(scales: Tensor, k: int) -> Tensor:
    """Tiles of 32 rows by ``k`` groups, rows in order: shuffle_scale_n32k4 (4), Triton's gfx1250 scales (8)."""
    experts, rows, groups = scales.shape
    return scales.view(experts, rows // 32, 32, groups // k, k).permute(0, 1, 3, 2, 4).reshape(experts, rows, groups)


def to_fnuz(weights: Tensor) -> Tensor:
    """The bytes of e4m3fn read as e4m3fnuz: half the value, and negative zero, which is NaN there, becomes zero."""
    raw = weights.view(torch.uint8).clone()
    raw[raw == 0x80] = 0
    return raw.view(torch.float8_e4m3fnuz)


def requantized(weights: Tensor, scales: Tensor) -> Tensor:
    """Gate and up, each with its own scale ``[E, 2]``, quantized again with the larger one."""
    result, half = weights.clone(), weights.shape[1] // 2
    limit = torch.finfo(weights.dtype).max
    for expert in range(weights.shape[0]):
        for shard in range(2):
            rows = slice(shard * half, (shard + 1) * half)
            values = weights[expert, rows].to(torch.float32) * scales[expert, shard] / scales[expert].max()
            result[expert, rows] = values.clamp(-limit, limit).to(weights.dtype)
    return result


def words_of(values: Tensor) -> Tensor:
    """AITER's convert_int8_to_uint32_int4: eight values in a word, the first in the lowest bits (here as int32)."""
    eights = values.to(torch.int64).unflatten(-1, (-1, 8)) & 0xF
    word = torch.stack([eights[..., index] << 4 * index for index in range(8)]).sum(0)
    return torch.where(word > 0x7FFFFFFF, word - (1 << 32), word).to(torch.int32)


def rearranged(words: Tensor) -> Tensor:
    """AITER's rearrange_4bit_elements: e0..e7 from the top become e0, e2, e4, e6, e1, e3, e5, e7."""
    bits = words.to(torch.int64) & 0xFFFFFFFF
    nibbles = [bits >> 28 - 4 * index & 0xF for index in range(8)]
    places = enumerate((0, 2, 4, 6, 1, 3, 5, 7))
    word = torch.stack([nibbles[index] << 28 - 4 * place for place, index in places]).sum(0)
    return torch.where(word > 0x7FFFFFFF, word - (1 << 32), word).to(torch.int32)


def values_of(words: Tensor) -> Tensor:
    """The int8 values of rearranged words."""
    bits = words.to(torch.int64) & 0xFFFFFFFF
    places = (7, 3, 6, 2, 5, 1, 4, 0)  # of values 0 to 7, counted from the top
    values = torch.stack([bits >> 28 - 4 * place & 0xF for place in places], dim=-1)
    return torch.where(values > 7, values - 16, values).to(torch.int8).flatten(-2)
