"""Repeated launches of a Triton kernel with the same numbers.

Triton looks at every argument of every call: 30 to 70 us of the host for our kernels. What that look depends on is the
same whenever a plan runs again, except for the buffers, so the compiled kernel is found once and started directly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch

_ALIGNED: Final = 16
_SHORT: Final = 2**31 - 1
"""Storages of up to so many bytes are addressed by 32 bits on AMD."""
_ELEMENTS: Final[dict[int, torch.dtype]] = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}

BufferKind = tuple[bool, bool]
"""Of a buffer, what Triton makes another kernel for."""
Compiled = tuple[Callable[..., None], tuple[Any, ...]]
"""Starts a compiled kernel on a grid; and its last arguments, which stay."""


@dataclass(frozen=True, slots=True, eq=False)
class KernelLaunch:
    """Triton kernel with fixed grid and numbers, started on changing buffers.

    Attributes:
        kernel: returns the kernel; called before the first launch. Its parameters are buffers, numbers, constants.
        grid: programs along up to three dimensions.
        buffers: of each buffer the bytes of one element, and the element where the kernel begins.
        numbers: the numbers behind those that ``start`` gets.
        constants: compile-time constants by the names of the kernel's last parameters.
        warps: of one program.
    """

    kernel: Callable[[], Any]
    grid: tuple[int, ...]
    buffers: tuple[tuple[int, int], ...]
    numbers: tuple[int, ...]
    constants: dict[str, Any]
    warps: int
    _compiled: dict[tuple[torch.device, tuple[BufferKind, ...]], Compiled] = field(default_factory=dict)

    def start(self, buffers: Sequence[torch.Tensor], numbers: Sequence[int] = ()) -> None:
        """Start the kernel on the current stream.

        It is the stream of the buffers' device, and is not waited for.

        Args:
            buffers: flat, of one device, in the order of the kernel's parameters.
            numbers: others for each launch, of which Triton must make the same kernel.
        """
        device = buffers[0].device
        if device.type != "cuda" or device.index == torch.cuda.current_device():
            self._start(device, buffers, numbers)
            return
        with torch.cuda.device(device):
            self._start(device, buffers, numbers)

    def _start(self, device: torch.device, buffers: Sequence[torch.Tensor], numbers: Sequence[int]) -> None:
        addresses = [
            buffer.data_ptr() + size * first for buffer, (size, first) in zip(buffers, self.buffers, strict=True)
        ]
        kinds = [
            (address % _ALIGNED == 0, buffer.untyped_storage().nbytes() <= _SHORT)
            for address, buffer in zip(addresses, buffers, strict=True)
        ]
        key = device, tuple(kinds)
        known = self._compiled.get(key)
        if known is not None:
            run, rest = known
            run(*addresses, *numbers, *rest)
            return
        views = [_elements(buffer, *kind) for buffer, kind in zip(buffers, self.buffers, strict=True)]
        kernel = self.kernel()
        compiled = kernel[self.grid](*views, *numbers, *self.numbers, **self.constants, num_warps=self.warps)
        if _takes_constants(compiled):
            constants = (self.constants[name] for name in kernel.arg_names if name in self.constants)
            self._compiled[key] = compiled[(*self.grid, 1, 1)[:3]], (*self.numbers, *constants)


def _elements(buffer: torch.Tensor, size: int, first: int) -> torch.Tensor:
    """View a flat buffer as elements, from one of them on.

    A rest that is no whole element is left out.
    """
    rest = buffer.nbytes % size
    flat = buffer.view(torch.uint8) if buffer.element_size() > 1 else buffer
    elements = (flat[:-rest] if rest else flat).view(_ELEMENTS[size])
    return elements[first:] if first else elements


def _takes_constants(compiled: Any) -> bool:
    """Return whether a compiled kernel can be started with all of its arguments.

    Triton before 3.3 leaves constants out, and its interpreter compiles nothing: both are called as ever.
    """
    signature = getattr(getattr(compiled, "src", None), "signature", {})
    return "constexpr" in signature.values() and hasattr(compiled, "__getitem__")
