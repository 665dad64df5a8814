"""Calls of any kernel on tensors of a small layer.

This is what all kinds of kernels share.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.derive.kernels.kernel_family import KernelKind
from preshuffle.layouts.derive.kernels.routing import TileRouting
from preshuffle.layouts.derive.kernels.weight_formats import FORMATS, Codes, Floats, WeightFormat
from preshuffle.layouts.emulator import GlobalMemory

BLOCK = 128
MX_GROUP = 32
READ_AHEAD = 1 << 16
"""Bytes behind each buffer that prefetches may read."""


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """Sizes of a layer, padding included.

    Attributes:
        gated: whether w13 has up rows, too.
        hidden_pad: columns of ``model_dim`` that are padding: zeros, at the end.
        intermediate_pad: columns of ``inter_dim`` that are padding.
    """

    experts: int
    inter_dim: int
    model_dim: int
    gated: bool = True
    hidden_pad: int = 0
    intermediate_pad: int = 0

    @property
    def padded(self) -> bool:
        """Whether any column is padding."""
        return bool(self.hidden_pad or self.intermediate_pad)

    def shape(self, role: str) -> tuple[int, int, int]:
        """Return experts, rows and K, in elements, of a weight."""
        if role.startswith("w13"):
            return self.experts, (2 if self.gated else 1) * self.inter_dim, self.model_dim
        return self.experts, self.model_dim, self.inter_dim


class LayerRun(ABC):
    """Kernel with its buffers; tensors can be exchanged between runs.

    Attributes:
        memory: buffers by name: ``x``, ``w13``, ``w2``, their scales, ``out`` and those of the routing.
        adds_bias: whether stage 1 adds a bias, in the buffer ``bias``, before the activation.
    """

    adds_bias: bool = False

    def __init__(self, kind: KernelKind, sizes: LayerSizes, routing: TileRouting) -> None:
        """Start without buffers."""
        self.kind, self.sizes, self.routing = kind, sizes, routing
        self.memory = GlobalMemory()

    @property
    @abstractmethod
    def arch(self) -> str:
        """GPU that the kernel is for."""

    @abstractmethod
    def run(self) -> Floats:
        """Run all blocks and return the output.

        Shape ``[tokens, top_k, inter_dim]`` for stage 1, else ``[tokens, model_dim]``.
        """

    @property
    def format(self) -> WeightFormat:
        """Number format of the weights."""
        return FORMATS[self.kind.family.weight_format]

    @property
    def x_format(self) -> WeightFormat:
        """Number format of the activations."""
        return FORMATS[self.kind.family.activation_format or self.kind.family.weight_format]

    @property
    def x_shape(self) -> tuple[int, int]:
        """Rows and columns of the activations.

        There is a row per token, for stage 2 per token and slot.
        """
        if self.kind.family.stage == "2":
            return self.routing.tokens * self.routing.top_k, self.sizes.inter_dim
        return self.routing.tokens, self.sizes.model_dim

    def set_tensors(self, tensors: Mapping[str, NDArray[np.generic]]) -> None:
        """Write tensors, as they lie in memory, by buffer name."""
        for name, tensor in tensors.items():
            self._set(name, tensor)

    def set_activations(self, codes: Codes) -> None:
        """Write the activations, shape `x_shape`."""
        self._set("x", self.x_format.pack(codes))

    def scale_size(self, role: str) -> int:
        """Return the bytes of a weight's scales."""
        experts, rows, k = self.sizes.shape(role)
        scale = self.kind.family.scale
        if scale == "row":
            return 4 * experts * rows
        if scale == "block":
            return 4 * experts * (rows // BLOCK) * (k // BLOCK)
        return {"mx": 1, "group": 2}[scale] * experts * rows * (k // MX_GROUP) if scale in ("mx", "group") else 4

    def weight_size(self, role: str) -> int:
        """Return the bytes of a weight."""
        experts, rows, k = self.sizes.shape(role)
        return experts * rows * self.format.bytes_of_k(k)

    def _set(self, name: str, tensor: NDArray[np.generic]) -> None:
        raw = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
        self.memory.bytes_of(name)[: len(raw)] = raw
