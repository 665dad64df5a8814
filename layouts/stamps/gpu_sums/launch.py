"""Launch of the kernel that takes fingerprints on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import torch

from preshuffle.layouts.tensors import KernelLaunch

_WORD: Final = 8
_SLOTS: Final = 8
_ROWS: Final = 8
_ALL: Final = 1 << 20
_PARTS: Final = 512
_WARPS: Final = 4
_SHORT_BITS: Final = 31
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
    found: list[torch.Tensor] = []
    for first in range(0, len(spans), _SLOTS):
        some = spans[first : first + _SLOTS]
        parts = [_PARTS if nbytes > _ALL else -(-nbytes // _PART_BYTES) for _, nbytes in some]
        most = max(parts)
        sums = torch.empty((len(some), most), dtype=torch.int64, device=device)
        # slots without a span repeat one: the arguments keep their types, and the kernel is compiled once
        addresses, sizes = zip(*some, *(some[0],) * (_SLOTS - len(some)), strict=True)
        long = tuple(number >= 1 << _SHORT_BITS for number in (*addresses, *sizes))
        _launch(most, len(some), long).start((sums.view(-1),), (most, *addresses, *sizes))
        found += [row if count == most else row[:count] for row, count in zip(sums.unbind(), parts, strict=True)]
    return found


# Process-wide: Triton's compiled kernels are.
@lru_cache(maxsize=256)
def _launch(most: int, spans: int, long: tuple[bool, ...]) -> KernelLaunch:
    """Return the launch for so many spans; numbers of 64 bits make another kernel (``long``)."""
    return KernelLaunch(_kernel, (-(-most // _ROWS), spans), ((_WORD, 0),), (), {"ROWS": _ROWS}, _WARPS)


def _kernel() -> Any:
    from preshuffle.layouts.stamps.gpu_sums.triton_sums import sum_parts as kernel

    return kernel
