"""Our own FlyDSL kernel as a kernel whose layout is derived: a down projection of one expert."""

from __future__ import annotations

from collections import Counter

import numpy as np

from preshuffle.layouts.derive import DerivableKernel, KernelFamily, KernelKind, LayerRun, LayerSizes
from preshuffle.layouts.derive.kernels.routing import TileRouting
from preshuffle.layouts.derive.kernels.weight_formats import Floats
from preshuffle.layouts.emulator.mlir import KernelIr, launch_ir
from support.flydsl.tiled_product import COLUMNS, SOURCE, K

TILE = 16
FAMILY = KernelFamily(
    id="tiled_product",
    file_name="tiled_product",
    stage="2",
    weight_format="bf16",
    scale="none",
    output="bf16",
    arguments=(),
)


class TiledRun(LayerRun):
    """The kernel with its buffers."""

    def __init__(self, kernel: KernelIr, sizes: LayerSizes, routing: TileRouting) -> None:
        super().__init__(KernelKind(FAMILY, TILE, TILE), sizes, routing)
        self.kernel = kernel
        rows = len(routing.sorted_ids)
        for name, size in (("x", 2 * rows * K), ("w2", 2 * K * COLUMNS), ("w2_scale", 4), ("out", 4 * rows * COLUMNS)):
            self.memory.reserve(name, size)

    @property
    def arch(self) -> str:
        return self.kernel.arch

    def run(self) -> Floats:
        addresses = [self.memory.address(name) for name in ("x", "w2", "out")]
        launch_ir(self.kernel, self.memory, [*addresses, len(self.routing.sorted_ids)])
        found = self.memory.bytes_of("out").view(np.float32).reshape(-1, COLUMNS)
        return found[: self.routing.tokens].astype(np.float64)


class TiledKernel(DerivableKernel):
    """The kernel's stored MLIR."""

    def __init__(self, text: str | None = None) -> None:
        self.ir = KernelIr(SOURCE.read_text(encoding="utf-8") if text is None else text)
        self.kind, self.name, self.arch = KernelKind(FAMILY, TILE, TILE), self.ir.name, self.ir.arch
        self.sha256 = "0" * 64

    def not_modelled(self) -> Counter[str]:
        return self.ir.not_modelled()

    def sizes(self, wide: bool = False) -> LayerSizes:
        return LayerSizes(experts=1, inter_dim=K, model_dim=COLUMNS)

    def run(self, sizes: LayerSizes, routing: TileRouting) -> TiledRun:
        return TiledRun(self.ir, sizes, routing)
