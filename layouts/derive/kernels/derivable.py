"""Kernel as the derivation sees it: its call and runs."""

from abc import ABC, abstractmethod
from collections import Counter

from preshuffle.layouts.derive.kernels.kernel_family import KernelKind
from preshuffle.layouts.derive.kernels.layer_run import LayerRun, LayerSizes
from preshuffle.layouts.derive.kernels.routing import TileRouting


class DerivableKernel(ABC):
    """Kernel of known family that can be run on a CPU.

    Attributes:
        name: as AITER's tables have it.
        arch: GPU that it is for.
        sha256: of what was executed: a code object, or a dump of MLIR.
        gate_mode: ``interleave`` or ``separated``, where the call says so and not the name.
        activation: ``silu``, ``gelu`` or ``swiglu``.
        top_k: slots per token that it was compiled for; 1: any.
        aiter: commit or version that it is from, where known.
        compiler: that made it, where it was compiled here.
        machine_code: whether that compiler has instructions for all of it on that GPU.
    """

    kind: KernelKind
    name: str
    arch: str
    sha256: str
    gate_mode: str = "separated"
    activation: str = "silu"
    top_k: int = 1
    aiter: str | None = None
    compiler: str | None = None
    machine_code: bool = True

    @abstractmethod
    def not_modelled(self) -> Counter[str]:
        """Return instructions or operations that are not modelled, with their counts."""

    @abstractmethod
    def sizes(self, wide: bool = False) -> LayerSizes:
        """Return the size of a small layer.

        A wide one has two tiles of scale groups.
        """

    @abstractmethod
    def run(self, sizes: LayerSizes, routing: TileRouting) -> LayerRun:
        """Return the kernel with buffers for a layer and a routing."""
