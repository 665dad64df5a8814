"""Child process of `support.aiter.afp4_gemm`: `python -m support.aiter.afp4_gemm_worker OPERANDS.pt PRODUCTS.pt`.

The launch keeps the contract of AITER's wrapper: w as [N/16, K/2*16] bytes, each row of it one tile of 16 rows; both
scales as [rows/32, K] bytes, each row one tile of 32 rows (AITER wants that order for activations from M = 32 on); the
kernel's K counts bytes. One K split, so the kernel writes the product itself, here as float32.
"""

import sys
from typing import Any

import torch
from torch import Tensor

from support.aiter.aiter_wheel import aiter_modules, triton_kernel


def largest_block(size: int, limit: int) -> int:
    """Return the largest power of two that divides `size`, at most `limit`: the kernel masks neither N nor K."""
    return min(size & -size, limit)


def tile_activation_scales(scales: Tensor) -> Tensor:
    """Return plain scales [M, K/32] as the kernel reads them, [M/32, K]; on purpose not the product's code."""
    rows, groups = scales.shape
    tiles = scales.reshape(rows // 32, 2, 16, groups // 8, 2, 4)
    return tiles.permute(0, 3, 5, 2, 4, 1).reshape(rows // 32, groups * 32)


def launch(kernel: Any, x: Tensor, w: Tensor, x_scale: Tensor, w_scale: Tensor, *, compiled: bool) -> Tensor:
    """Return x @ w.T as float32 [M, N]."""
    (m, k_bytes), n = x.shape, w.shape[0]
    k = 2 * k_bytes
    w_tiles = w.reshape(n // 16, k_bytes * 16)
    x_scale_tiles = tile_activation_scales(x_scale)
    w_scale_tiles = w_scale.flatten()[: n * k // 32].view(n // 32, k)
    product = torch.empty(m, n, dtype=torch.float32, device=x.device)
    # A compiled block has to fit the GPU's registers; the interpreter pays per operation, so large blocks are fast.
    limit_n, limit_k = (64, 256) if compiled else (512, 1024)
    block_m, block_n, block_k = 32, largest_block(n, limit_n), largest_block(k, limit_k)
    kernel[((m // block_m) * (n // block_n),)](
        x,
        w_tiles,
        product,
        x_scale_tiles,
        w_scale_tiles,
        m,
        n,
        k_bytes,
        *x.stride(),
        *w_tiles.stride(),
        0,  # no stride between K splits
        *product.stride(),
        *x_scale_tiles.stride(),
        *w_scale_tiles.stride(),
        BLOCK_SIZE_M=block_m,
        BLOCK_SIZE_N=block_n,
        BLOCK_SIZE_K=block_k,
        GROUP_SIZE_M=1,
        NUM_KSPLIT=1,
        SPLITK_BLOCK_SIZE=k,
        cache_modifier="",
    )
    return product


def main(operands: str, products: str) -> None:
    """Read the operands of several products, write the products."""
    compiled = torch.cuda.is_available()
    device = torch.device("cuda" if compiled else "cpu")
    with aiter_modules():
        kernel = triton_kernel("gemm_afp4wfp4", "_gemm_afp4_wfp4_kernel_preshuffled_weight_scales")
        gemms: list[tuple[Tensor, Tensor, Tensor, Tensor]] = torch.load(operands, weights_only=True)
        results = [launch(kernel, *(tensor.to(device) for tensor in gemm), compiled=compiled).cpu() for gemm in gemms]
    torch.save(results, products)


if __name__ == "__main__":
    main(*sys.argv[1:])
