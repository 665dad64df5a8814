"""Emulated calls of an assembly kernel."""

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.derive.kernels.kernel_family import KernelKind
from preshuffle.layouts.derive.kernels.layer_run import BLOCK, MX_GROUP, READ_AHEAD, LayerRun, LayerSizes
from preshuffle.layouts.derive.kernels.routing import TileRouting
from preshuffle.layouts.derive.kernels.weight_formats import Bytes, Floats
from preshuffle.layouts.emulator import FP8_OF_ARCH, Program, bf16_to_float, launch

PERSISTENT_ROUNDS = 4
"""Blocks of a persistent kernel for each block of columns."""


class KernelRun(LayerRun):
    """Assembly kernel with its buffers."""

    def __init__(
        self, program: Program, kind: KernelKind, sizes: LayerSizes, routing: TileRouting, split_k: int = 0
    ) -> None:
        """Allocate buffers for a layer and a routing.

        K is split into ``2 ** split_k`` parts.
        """
        super().__init__(kind, sizes, routing)
        self.program, self.split_k = program, split_k
        for name, size in self._buffer_sizes().items():
            self.memory.reserve(name, size, READ_AHEAD)
        self._set("valid", np.array([len(routing.sorted_ids), routing.tokens], np.int32))
        self._set("sorted_ids", routing.sorted_ids)
        self._set("tile_experts", routing.tile_experts)
        self._set("weights", routing.weights)
        self._set("smooth", np.ones(sizes.experts * sizes.inter_dim, np.float32))
        values = self._argument_values()
        packed = b"".join(values[name].to_bytes(16, "little") for name in kind.family.arguments)
        self._arguments = self.memory.add("arguments", np.frombuffer(packed, np.uint8), READ_AHEAD)
        self.instructions = 0

    @property
    def arch(self) -> str:
        """GPU that the kernel is for."""
        return self.program.code.arch

    def run(self) -> Floats:
        """Run all blocks and return the output.

        Shape ``[tokens, top_k, inter_dim]`` for stage 1, ``[tokens, model_dim]`` for a whole layer.
        """
        self.memory.bytes_of("out")[:] = 0
        self.instructions += launch(self.program, self.memory, self._arguments, self._blocks()).instructions
        return self._output()

    def _buffer_sizes(self) -> dict[str, int]:
        sizes, routing = self.sizes, self.routing
        k_bytes = self.format.bytes_of_k(sizes.model_dim)
        return {
            "out": self._out_bytes(),
            "x": routing.tokens * self._input_copies * k_bytes,
            "w13": self.weight_size("w13_weight"),
            "w2": self.weight_size("w2_weight"),
            "x_scale": self._x_scale_bytes(),
            "w13_scale": self.scale_size("w13_weight"),
            "w2_scale": self.scale_size("w2_weight"),
            "smooth": 4 * sizes.experts * sizes.inter_dim,
            "valid": 8,
            "sorted_ids": 4 * len(routing.sorted_ids),
            "tile_experts": 4 * len(routing.tile_experts),
            "weights": 4 * len(routing.sorted_ids),
        }

    def _x_scale_bytes(self) -> int:
        groups = {"row": 4, "block": 4 * (self.sizes.model_dim // BLOCK), "none": 4}
        scale = self.kind.family.scale
        if scale == "mx":  # in the order of the sorted rows, padded for tiles of 256 rows and 8 groups
            rows = -(-len(self.routing.sorted_ids) // 256) * 256
            return rows * (-(-(self.sizes.model_dim // MX_GROUP) // 8) * 8)
        return self.routing.tokens * self._input_copies * groups[scale]

    @property
    def _input_copies(self) -> int:
        """Rows of the input per token."""
        return self.routing.top_k if self.kind.family.smooth else 1

    def _set(self, name: str, tensor: NDArray[np.generic]) -> None:
        copied = name in ("x", "x_scale") and self._input_copies > 1
        super()._set(name, np.tile(np.asarray(tensor).reshape(-1), self._input_copies) if copied else tensor)

    def _out_bytes(self) -> int:
        tokens, family = self.routing.tokens, self.kind.family
        if family.stage == "1-stage":
            return 2 * tokens * self.sizes.model_dim
        values = tokens * self.routing.top_k * self.sizes.inter_dim
        if self.split_k:
            return 4 * 2 * values  # float32 sums of gate and up
        return values + 4 * (values // BLOCK) if family.output == "fp8_block" else 2 * values

    def _argument_values(self) -> dict[str, int]:
        sizes, family = self.sizes, self.kind.family
        w13_stride, w2_stride = self.format.bytes_of_k(sizes.model_dim), self.format.bytes_of_k(sizes.inter_dim)
        out_width = sizes.model_dim if family.stage == "1-stage" else self.routing.top_k * sizes.inter_dim
        numbers = {
            "zero": 0,
            "split_k": self.split_k,
            "model_dim": sizes.model_dim,
            "inter_dim": sizes.inter_dim,
            "tokens": self.routing.tokens,
            "experts": sizes.experts,
            "x_stride": w13_stride,
            "w13_stride": w13_stride,
            "w2_stride": w2_stride,
            "out_stride": out_width * (8 if self.split_k else 1 if family.output == "fp8_block" else 2),
            "w13_expert_stride": self.weight_size("w13_weight") // sizes.experts,
            "w2_expert_stride": self.weight_size("w2_weight") // sizes.experts,
            "w13_scale_stride": self.scale_size("w13_weight") // sizes.experts,
            "w2_scale_stride": self.scale_size("w2_weight") // sizes.experts,
            "smooth_stride": 4 * sizes.inter_dim,
            "top_k": self.routing.top_k,
            "column_blocks": self._column_blocks(),
            "persistent_blocks": PERSISTENT_ROUNDS * self._column_blocks() if self.kind.persistent else 0,
        }
        return numbers | {name: self.memory.address(name) for name in self._buffer_sizes()}

    def _column_blocks(self) -> int:
        return -(-self.sizes.inter_dim // self.kind.tile_n)

    def _blocks(self) -> list[tuple[int, int, int]]:
        if self.kind.persistent:
            return [(block, 0, 0) for block in range(PERSISTENT_ROUNDS * self._column_blocks())]
        tiles = len(self.routing.tile_experts)
        columns, parts = range(self._column_blocks()), range(1 << self.split_k)
        return [(column, tile, part) for part in parts for tile in range(tiles) for column in columns]

    def _output(self) -> Floats:
        raw, family = self.memory.bytes_of("out"), self.kind.family
        routing, sizes = self.routing, self.sizes
        shape = (routing.tokens, sizes.model_dim)
        if family.stage == "1":
            shape = (routing.tokens, routing.top_k * sizes.inter_dim)
        if self.split_k:
            gate, up = np.split(
                raw.view(np.float32).reshape(routing.tokens, routing.top_k, -1).astype(np.float64), 2, -1
            )
            activated: Floats = gate / (1 + np.exp(-gate)) * up  # AITER does this afterwards, in a kernel of its own
            return activated
        if family.output == "fp8_block":
            values = _blockwise(raw, shape, self.arch)
        elif family.output == "f16":
            values = raw.view(np.float16).astype(np.float64).reshape(shape)
        else:
            values = bf16_to_float(raw.view(np.uint16)).astype(np.float64).reshape(shape)
        return values.reshape(routing.tokens, routing.top_k, -1) if family.stage == "1" else values


def _blockwise(raw: Bytes, shape: tuple[int, int], arch: str) -> Floats:
    """Return fp8 values times the float32 scales, one per 128 columns, that follow them."""
    count = shape[0] * shape[1]
    scales = raw[count:].view(np.float32).reshape(shape[0], -1)
    values = FP8_OF_ARCH[arch][raw[:count]].reshape(shape)
    scaled: Floats = values * np.repeat(scales.astype(np.float64), BLOCK, 1)
    return scaled
