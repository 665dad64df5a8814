"""MXFP4 test data and its exact value: random codes and scales, float64 dequantization."""

from dataclasses import dataclass

import torch
from torch import Tensor

GROUP = 32  # values that share one scale
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


@dataclass(frozen=True, slots=True)
class Mxfp4:
    """A matrix in plain order: `codes` uint8 [rows, K/2], low nibble first; `scales` e8m0 as uint8 [rows, K/32]."""

    codes: Tensor
    scales: Tensor

    def dequantize(self) -> Tensor:
        """Return the exact float64 values, [rows, K]."""
        codes = torch.stack([self.codes & 15, self.codes >> 4], dim=-1).flatten(-2)
        values = torch.tensor(E2M1, dtype=torch.float64)[codes.long()]
        return values * torch.exp2(self.scales.double() - 127).repeat_interleave(GROUP, dim=-1)


def random_bytes(*shape: int, seed: int, low: int = 0, high: int = 256) -> Tensor:
    """Return uint8 values in `low <= x < high`, the same for the same seed."""
    return torch.randint(low, high, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def random_mxfp4(rows: int, k: int, *, seed: int) -> Mxfp4:
    """Return all 16 codes, and scales 2^-7 .. 2^7 that differ from group to group and from row to row."""
    return Mxfp4(
        random_bytes(rows, k // 2, seed=seed),
        random_bytes(rows, k // GROUP, seed=seed + 1, low=120, high=135),
    )


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return |actual - expected| / |expected| in the L2 norm; infinity if anything is not finite."""
    error = (actual.double() - expected).norm() / expected.norm()
    return float(error) if error.isfinite() else float("inf")
