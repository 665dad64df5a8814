"""Launch of the kernel that takes fingerprints on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

_WORD: Final = 8
_SLOTS: Final = 8
_ROWS: Final = 8
_ALL: Final = 1 << 20
_PARTS: Final = 512
_PART_BYTES: Final = 64 * _WORD


def can_sum(device: torch.device, address: int, nbytes: int) -> bool:
    """Return whether the kernel takes a span of memory.

    It takes whole words of a GPU; a sampled span may end within one.
    """
    return device.type == "cuda" and address % _WORD == 0 and nbytes > 0 and (nbytes > _ALL or nbytes % _WORD == 0)


def sum_parts(device: torch.device, spans: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
    """Return the sums of each span's parts, flat int64 on the device.

    Up to eight spans take one launch. Runs on the current stream and does not wait.

    Args:
        device: a GPU.
        spans: address and bytes of each.
    """
    from preshuffle.layouts.stamps.gpu_sums.triton_sums import sum_parts as kernel

    found: list[torch.Tensor] = []
    for first in range(0, len(spans), _SLOTS):
        some = spans[first : first + _SLOTS]
        parts = [_PARTS if nbytes > _ALL else -(-nbytes // _PART_BYTES) for _, nbytes in some]
        most = max(parts)
        sums = torch.empty((len(some), most), dtype=torch.int64, device=device)
        # slots without a span repeat one: the arguments keep their types, and the kernel is compiled once
        addresses, sizes = zip(*some, *(some[0],) * (_SLOTS - len(some)), strict=True)
        kernel[(-(-most // _ROWS), len(some))](sums, most, *addresses, *sizes, ROWS=_ROWS, num_warps=4)
        found += [row if count == most else row[:count] for row, count in zip(sums.unbind(), parts, strict=True)]
    return found
