"""Assembly kernel of a code object, for derivation."""

from collections import Counter

from preshuffle.layouts.derive.kernels.derivable import DerivableKernel
from preshuffle.layouts.derive.kernels.kernel_family import kind_of
from preshuffle.layouts.derive.kernels.kernel_run import KernelRun
from preshuffle.layouts.derive.kernels.layer_run import LayerSizes
from preshuffle.layouts.derive.kernels.routing import TileRouting
from preshuffle.layouts.emulator import CodeObject, Program

EXPERTS = 2
LEAST_K = 256
WIDER_K = 512


class AssemblyKernel(DerivableKernel):
    """Code object whose file name says how it is called."""

    def __init__(self, code: CodeObject, stem: str) -> None:
        """Prepare a kernel.

        Args:
            code: the code object.
            stem: of its file's name.

        Raises:
            DeriveError: no family has that name.
        """
        self.kind = kind_of(stem)
        self.activation = self.kind.activation
        self.name, self.arch, self.sha256 = code.name, code.arch, code.sha256
        self.program = Program(code)

    def not_modelled(self) -> Counter[str]:
        """Return instructions that the emulator does not model."""
        return self.program.not_modelled()

    def sizes(self, wide: bool = False) -> LayerSizes:
        """Return the size of a small layer."""
        k = WIDER_K if wide else LEAST_K
        if not self._both_stages:
            return LayerSizes(EXPERTS, 2 * self.kind.tile_n, k, self.kind.family.gated)
        inter_dim = (-(-WIDER_K // self.kind.tile_n) if wide else 1) * self.kind.tile_n
        return LayerSizes(EXPERTS, inter_dim, self._model_dim(k, inter_dim), self.kind.family.gated)

    def run(self, sizes: LayerSizes, routing: TileRouting) -> KernelRun:
        """Return the kernel with buffers for a layer and a routing."""
        return KernelRun(self.program, self.kind, sizes, routing)

    @property
    def _both_stages(self) -> bool:
        return self.kind.family.stage == "1-stage"

    def _model_dim(self, k: int, inter_dim: int) -> int:
        """Return the layer's width: at least as wide as the columns between its stages."""
        if inter_dim <= k:
            return k
        return -(-inter_dim // WIDER_K) * WIDER_K  # their loops over w2 take whole multiples
