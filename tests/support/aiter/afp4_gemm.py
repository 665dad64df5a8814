"""AITER's MXFP4 x MXFP4 Triton kernel, interpreted on a CPU and compiled on a GPU, in a process of its own.

`TRITON_INTERPRET` is read when a kernel is decorated, and Triton's own library is decorated when Triton is imported:
one process either interprets or compiles. The kernel therefore runs in a child; the suite's process stays untouched.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

TIMEOUT_S: Final = 300


class Gemm(NamedTuple):
    """Operands of one product, in bytes as the kernel's caller holds them."""

    x_fp4: Tensor
    """uint8 [M, K/2], plain; M a multiple of 32."""
    w_laid_out: Tensor
    """uint8 [N, K/2], the bytes under test; N a multiple of 32, K of 256."""
    x_scale: Tensor
    """uint8 [M, K/32], plain: the kernel's order for activations is made here."""
    w_scale_laid_out: Tensor
    """uint8 [at least N, K/32], the bytes under test; rows that pad the tail are not read."""


def gemm_afp4_wfp4_preshuffled(x_fp4: Tensor, w_laid_out: Tensor, x_scale: Tensor, w_scale_laid_out: Tensor) -> Tensor:
    """Return x @ w.T as float32 [M, N]; the operands are `Gemm`'s."""
    return run_gemms([Gemm(x_fp4, w_laid_out, x_scale, w_scale_laid_out)])[0]


def run_gemms(gemms: Sequence[Gemm]) -> list[Tensor]:
    """Run the kernel on each of `gemms` in one child process; starting it takes longer than a product.

    Raises:
        ValueError: operands that the kernel would read out of bounds.
        RuntimeError: the child failed; its output is the message.
    """
    for gemm in gemms:
        _check(gemm)
    with tempfile.TemporaryDirectory() as folder:
        operands, products = Path(folder, "operands.pt"), Path(folder, "products.pt")
        torch.save([tuple(tensor.contiguous().cpu() for tensor in gemm) for gemm in gemms], operands)
        command = [sys.executable, "-m", "support.aiter.afp4_gemm_worker", str(operands), str(products)]
        child = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=TIMEOUT_S)
        if child.returncode:
            raise RuntimeError(f"{' '.join(command)} exited {child.returncode}\n{child.stdout}{child.stderr}")
        result: list[Tensor] = torch.load(products, weights_only=True)
    return result


def _environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    tests = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [tests, environment.get("PYTHONPATH")]))
    return environment


def _check(gemm: Gemm) -> None:
    (m, k_bytes), n, groups = gemm.x_fp4.shape, gemm.w_laid_out.shape[0], gemm.x_scale.shape[1]
    if m % 32 or n % 32 or k_bytes % 128:
        raise ValueError(f"the kernel reads tiles of 32 rows and 256 values: M={m}, N={n}, K={2 * k_bytes}")
    expected = {
        "w_laid_out": (gemm.w_laid_out.shape, (n, k_bytes)),
        "x_scale": (gemm.x_scale.shape, (m, k_bytes // 16)),
        "w_scale_laid_out": (gemm.w_scale_laid_out.shape, (max(n, gemm.w_scale_laid_out.shape[0]), groups)),
    }
    for name, (actual, wanted) in expected.items():
        if tuple(actual) != wanted:
            raise ValueError(f"{name} is {tuple(actual)}, not {wanted}")
    if any(tensor.dtype != torch.uint8 for tensor in gemm):
        raise ValueError(f"operands are bytes, got {[tensor.dtype for tensor in gemm]}")
