"""Copies of mapped tensors to a device, overlapped with reading them."""

from __future__ import annotations

import torch

from preshuffle.layouts.tensors import as_bytes

_BUFFER = 64 << 20


class DeviceCopier:
    """Copies tensors through two buffers in pinned memory.

    While one is on its way to the GPU, the other is filled from the file. To a CPU it is a plain copy.
    """

    def __init__(self, device: torch.device) -> None:
        """Copy to a device; buffers are made at the first copy."""
        self._device = device
        self._buffers: list[torch.Tensor] = []
        self._sent: list[torch.cuda.Event | None] = [None, None]
        self._turn = 0

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor's bytes in the device's memory; ``finish`` waits for them."""
        result = torch.empty(tensor.shape, dtype=tensor.dtype, device=self._device)
        if self._device.type != "cuda":
            as_bytes(result).copy_(as_bytes(tensor))
            return result
        if not self._buffers:
            self._buffers = [torch.empty(_BUFFER, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        source, target = as_bytes(tensor), as_bytes(result)
        for first in range(0, source.numel(), _BUFFER):
            self._send(source[first : first + _BUFFER], target[first : first + _BUFFER])
        return result

    def finish(self) -> None:
        """Wait until everything has arrived."""
        for event in self._sent:
            if event is not None:
                event.synchronize()

    def _send(self, source: torch.Tensor, target: torch.Tensor) -> None:
        buffer, event = self._buffers[self._turn], self._sent[self._turn]
        if event is not None:
            event.synchronize()
        part = buffer[: source.numel()]
        part.copy_(source)
        target.copy_(part, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        self._sent[self._turn] = event
        self._turn = 1 - self._turn
