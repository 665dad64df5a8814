"""FlyDSL kernel that was compiled to MLIR, for derivation."""

from collections import Counter

from preshuffle.layouts.derive.flydsl.families import flydsl_name
from preshuffle.layouts.derive.flydsl.ir_file import IrFile
from preshuffle.layouts.derive.flydsl.ir_run import FlydslRun
from preshuffle.layouts.derive.kernels.derivable import DerivableKernel
from preshuffle.layouts.derive.kernels.layer_run import LayerSizes
from preshuffle.layouts.derive.kernels.routing import TileRouting
from preshuffle.layouts.emulator import KernelIr
from preshuffle.registry import Layout

WRITTEN_SCALES = Layout.of("written", "e (nt r2 r16) (kt k2 k4) -> e nt kt k4 r16 k2 r2", "group")
"""Order of the scales that stage 1 writes and stage 2 reads: tiles of 32 rows by 8 groups."""


class FlydslKernel(DerivableKernel):
    """MLIR of a kernel whose name says how it is called."""

    def __init__(self, file: IrFile) -> None:
        """Parse the MLIR.

        Raises:
            DeriveError: no family has the kernel's name.
            EmulatorError: the text is no kernel's MLIR in generic form.
        """
        self.file, self.named = file, flydsl_name(file.kernel)
        self.ir = KernelIr(file.text)
        self.kind = self.named.kind
        self.name, self.arch, self.sha256 = file.kernel, self.ir.arch, file.sha256
        self.gate_mode, self.activation = file.gate_mode, file.activation
        self.top_k = file.top_k
        self.aiter, self.compiler = file.aiter, f"flydsl {file.flydsl}"
        self.machine_code = file.machine_code

    def not_modelled(self) -> Counter[str]:
        """Return operations that the emulator does not model."""
        return self.ir.not_modelled()

    def sizes(self, wide: bool = False) -> LayerSizes:
        """Return the size that the kernel was compiled for."""
        return self.file.sizes

    def run(self, sizes: LayerSizes, routing: TileRouting) -> FlydslRun:
        """Return the kernel with buffers for a routing."""
        return FlydslRun(self.ir, self.named, self.file, routing, WRITTEN_SCALES)
