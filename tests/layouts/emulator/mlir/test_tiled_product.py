"""A whole kernel in MLIR: the launch, loops, branches, memory; its text, whole and damaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from preshuffle.layouts.emulator import (
    CodeObjectError,
    EmulatorError,
    GlobalMemory,
    MemoryAccessError,
    UnmodelledInstructionError,
)
from preshuffle.layouts.emulator.mlir import KernelIr, launch_ir
from support.flydsl.operations import ALL
from support.flydsl.tiled_product import COLUMNS, SOURCE, K

assert ALL
TEXT = SOURCE.read_text(encoding="utf-8")


def in_tiles(weights: torch.Tensor) -> torch.Tensor:
    """Return bf16 weights [columns, k] in tiles of 16 rows by 16 bytes, as AITER's shuffle_weight."""
    rows, k = weights.shape
    return weights.reshape(rows // 16, 16, k // 8, 8).permute(0, 2, 1, 3).contiguous()


def product(kernel: KernelIr, rows: int) -> tuple[np.ndarray, np.ndarray]:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn((rows, K), generator=generator).to(torch.bfloat16)
    weights = torch.randn((COLUMNS, K), generator=generator).to(torch.bfloat16)
    memory = GlobalMemory()
    addresses = [
        memory.add("x", x.view(torch.uint16).numpy(), 4096),
        memory.add("weights", in_tiles(weights).view(torch.uint16).numpy()),
        memory.reserve("out", 4 * rows * COLUMNS),
    ]
    launch_ir(kernel, memory, [*addresses, rows])
    found = memory.bytes_of("out").view(np.float32).reshape(rows, COLUMNS)
    return found, (x.double() @ weights.double().T).numpy()


@pytest.mark.parametrize("rows", [16, 37, 4096])
def test_the_kernel_gives_the_product(rows: int) -> None:
    found, wanted = product(KernelIr(TEXT), rows)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_facts_of_the_kernel() -> None:
    kernel = KernelIr(TEXT)
    assert (kernel.name, kernel.arch, kernel.lds_bytes) == ("tiled_product_0", "gfx950", 0)
    assert kernel.not_modelled() == {}
    assert kernel.operations["rocdl.mfma.f32.16x16x32.bf16"] == 1


def test_a_small_buffer_is_an_error() -> None:
    memory = GlobalMemory()
    x, out = memory.reserve("x", 16 * K * 2), memory.reserve("out", 16 * COLUMNS * 4)
    weights = memory.reserve("weights", K * COLUMNS)  # half of what is read
    with pytest.raises(MemoryAccessError, match="from the start of weights") as caught:
        launch_ir(KernelIr(TEXT), memory, [x, weights, out, 16])
    assert caught.value.__notes__ == ["at llvm.load"]


def test_an_operation_that_is_not_modelled_has_a_name() -> None:
    kernel = KernelIr(TEXT.replace("rocdl.mfma.f32.16x16x32.bf16", "rocdl.mfma.f32.99x99x99.bf16"))
    assert kernel.not_modelled() == {"rocdl.mfma.f32.99x99x99.bf16": 1}
    with pytest.raises(UnmodelledInstructionError, match=r"rocdl.mfma.f32.99x99x99.bf16: not modelled"):
        product(kernel, 16)


def test_a_launch_needs_all_arguments() -> None:
    with pytest.raises(EmulatorError, match="launch takes 5 arguments with its stream, 2 were given"):
        launch_ir(KernelIr(TEXT), GlobalMemory(), [1, 2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no MLIR module in generic form: it begins with ''"),
        ("module attributes {gpu.container_module} {\n}", "no MLIR module in generic form"),
        (TEXT[: len(TEXT) // 2].rpartition("\n")[0], "the MLIR text ends within a region"),
        (TEXT.replace('"rocdl.workgroup.id.x"()', "rocdl.workgroup.id.x"), "no operation of MLIR's generic form"),
        (TEXT.replace("gpu.launch_func", "gpu.other"), "0 functions instead of one function that launches"),
        (TEXT.replace('chip = "gfx950"', 'chip = "sm_90"'), "names no target GPU"),
    ],
)
def test_damaged_text_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(CodeObjectError, match=message):
        KernelIr(text)


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(UnmodelledInstructionError, match="type !tensor<4xf32>: not modelled"):
        KernelIr(TEXT.replace("-> vector<4xf32>", "-> !tensor<4xf32>", 1))
