"""Kernels that are started without Triton's look at their arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from preshuffle.layouts.tensors import KernelLaunch

LONG = 1 << 31


@dataclass
class FakeKernel:
    """Kernel that records how it is called; ``signature`` is what its compiled form says of its parameters."""

    signature: dict[str, str]
    arg_names: tuple[str, ...] = ("source", "target", "shift", "size", "A", "B")
    by_triton: list[tuple[Any, ...]] = field(default_factory=list)
    direct: list[tuple[Any, ...]] = field(default_factory=list)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        def call(*arguments: Any, **constants: Any) -> Any:
            self.by_triton.append((grid, arguments, constants))
            return self.compiled()

        return call

    def compiled(self) -> Any:
        kernel = self

        class Compiled(SimpleNamespace):
            def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
                return lambda *arguments: kernel.direct.append((grid, arguments))

        return Compiled(src=SimpleNamespace(signature=kernel.signature))


WITH_CONSTANTS = {"source": "*i32", "target": "*i32", "shift": "i32", "size": "i32", "A": "constexpr", "B": "constexpr"}
WITHOUT = {"source": "*i32", "target": "*i32", "shift": "i32", "size": "i32"}


def launch_of(kernel: FakeKernel) -> KernelLaunch:
    return KernelLaunch(lambda: kernel, (7,), ((4, 0), (2, 3)), (640,), {"B": 2, "A": 1}, 8)


def test_a_compiled_kernel_gets_addresses_numbers_and_constants_in_its_order() -> None:
    kernel = FakeKernel(WITH_CONSTANTS)
    launch = launch_of(kernel)
    source, target = torch.zeros(64, dtype=torch.uint8), torch.zeros(67, dtype=torch.uint8)
    launch.start((source, target), (5,))
    launch.start((source, target), (6,))
    ((grid, arguments, constants),) = kernel.by_triton
    assert (grid, arguments[2:], constants) == ((7,), (5, 640), {"A": 1, "B": 2, "num_warps": 8})
    assert [view.dtype for view in arguments[:2]] == [torch.int32, torch.int16]
    assert [view.numel() for view in arguments[:2]] == [16, 30]
    addresses = source.data_ptr(), target.data_ptr() + 6
    assert [view.data_ptr() for view in arguments[:2]] == list(addresses)
    assert kernel.direct == [((7, 1, 1), (*addresses, 6, 640, 1, 2))]


@pytest.mark.parametrize(
    "other",
    [
        lambda: torch.zeros(80, dtype=torch.uint8)[4:],
        lambda: torch.empty(LONG, dtype=torch.uint8, device="meta"),
    ],
    ids=["another alignment", "more bytes than 31 bits count"],
)
def test_triton_looks_again_at_buffers_of_another_kind(other: Callable[[], torch.Tensor]) -> None:
    kernel = FakeKernel(WITH_CONSTANTS)
    launch = launch_of(kernel)
    second = other()
    for source in (torch.zeros(64, dtype=torch.uint8, device=second.device), second):
        target = torch.zeros(64, dtype=torch.uint8, device=second.device)
        for _ in range(2):
            launch.start((source, target), (5,))
    assert (len(kernel.by_triton), len(kernel.direct)) == (2, 2)


def test_what_leaves_constants_out_is_called_as_ever() -> None:
    kernel = FakeKernel(WITHOUT)
    launch = launch_of(kernel)
    buffers = torch.zeros(64, dtype=torch.uint8), torch.zeros(64, dtype=torch.uint8)
    for _ in range(3):
        launch.start(buffers, (5,))
    assert (len(kernel.by_triton), len(kernel.direct)) == (3, 0)
