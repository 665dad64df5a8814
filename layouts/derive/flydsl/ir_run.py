"""Runs of a FlyDSL kernel's MLIR on a layer."""

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.derive.flydsl.families import COMPUTE_UNITS, FlydslName
from preshuffle.layouts.derive.flydsl.ir_file import IrFile
from preshuffle.layouts.derive.kernels.activations import SITU_BETA, SITU_LINEAR_BETA, SWIGLU_LIMIT, combine
from preshuffle.layouts.derive.kernels.layer_run import MX_GROUP, READ_AHEAD, LayerRun
from preshuffle.layouts.derive.kernels.placement import addresses_in
from preshuffle.layouts.derive.kernels.routing import TileRouting
from preshuffle.layouts.derive.kernels.weight_formats import FORMATS, Bytes, Codes, Floats
from preshuffle.layouts.emulator import KernelIr, bf16_to_float, launch_ir
from preshuffle.registry import Layout

SCALE_ROWS, SCALE_GROUPS = 256, 8
"""Scales of activations are padded to multiples of these."""

QUANTIZED = {"fp4_mx": "fp4", "fp8_mx": "fp8"}
E8M0_BIAS = 127


class FlydslRun(LayerRun):
    """FlyDSL kernel with its buffers."""

    def __init__(
        self, kernel: KernelIr, named: FlydslName, file: IrFile, routing: TileRouting, scale_layout: Layout
    ) -> None:
        """Allocate buffers for a routing.

        Args:
            kernel: the compiled kernel.
            named: how it is called.
            file: for which layer it was compiled.
            routing: of the tokens.
            scale_layout: of scales that the kernel writes.
        """
        super().__init__(named.kind, file.sizes, routing)
        self.kernel, self.named, self.file = kernel, named, file
        self.adds_bias = file.bias
        self._scale_layout = scale_layout
        for name, size in self._buffer_sizes().items():
            self.memory.reserve(name, size, READ_AHEAD)
        self._set("valid", np.array([len(routing.sorted_ids), routing.tokens], np.int32))
        self._set("sorted_ids", routing.sorted_ids)
        self._set("tile_experts", routing.tile_experts)
        self._set("weights", routing.weights)
        self.operations = 0

    @property
    def arch(self) -> str:
        """GPU that the kernel was compiled for."""
        return self.kernel.arch

    def set_activations(self, codes: Codes) -> None:
        """Write the activations in the order that the kernel takes.

        Some kernels take them in the order of the tiles' rows.
        """
        if self.named.called.sorted_input:
            codes = codes[self.routing.rows_of_input(per_slot=True)]
        super().set_activations(codes)

    def run(self) -> Floats:
        """Run all blocks and return the output."""
        for name in ("out", "out_scale"):
            self.memory.bytes_of(name)[:] = 0
        values = self._argument_values()
        arguments = [values[name] for name in self.named.called.arguments]
        self.operations += launch_ir(self.kernel, self.memory, arguments)
        return self._second_stage() if self.kind.family.stage == "2" else self._first_stage()

    @property
    def _sorted_rows(self) -> int:
        return len(self.routing.sorted_ids)

    @property
    def _padded_rows(self) -> int:
        return -(-self._sorted_rows // SCALE_ROWS) * SCALE_ROWS

    @property
    def _scale_rows(self) -> NDArray[np.int64]:
        """Row among the output's scales of each row of the tiles."""
        tile = self.routing.tile_rows
        rows = np.arange(self._sorted_rows)
        return rows // tile * max(tile, self.named.called.scale_tile_rows) + rows % tile

    @property
    def _padded_scale_rows(self) -> int:
        return -(-(int(self._scale_rows[-1]) + 1) // SCALE_ROWS) * SCALE_ROWS

    @property
    def _out_shape(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        sizes, routing, family = self.sizes, self.routing, self.kind.family
        slots = routing.tokens * routing.top_k
        if family.stage == "2":
            by_token = slots if self.named.reduces else routing.tokens
            return (self._padded_rows if self.named.called.sorted_output else by_token), sizes.model_dim
        width = sizes.inter_dim * (2 if family.output == "partial" else 1)
        return (self._padded_rows if self.named.called.sorted_output else slots), width

    def _buffer_sizes(self) -> dict[str, int]:
        rows, columns = self._out_shape
        x_rows, k = self.x_shape
        output = self.kind.family.output
        bits = FORMATS[QUANTIZED.get(output, "bf16")].bits
        scales = self.kind.family.scaled_activations
        return {
            "out": rows * columns * bits // 8,
            "out_scale": self._padded_scale_rows * _padded_groups(columns) if output in QUANTIZED else 16,
            "x": (self._sorted_rows if self.named.called.sorted_input else x_rows) * self.x_format.bytes_of_k(k),
            "w13": self.weight_size("w13_weight"),
            "w2": self.weight_size("w2_weight"),
            "x_scale": self._padded_rows * _padded_groups(k) if scales else 16,
            "w13_scale": self.scale_size("w13_weight"),
            "w2_scale": self.scale_size("w2_weight"),
            "bias": 4 * self.sizes.experts * 2 * self.sizes.inter_dim,
            "valid": 8,
            "sorted_ids": 4 * self._sorted_rows,
            "tile_experts": 4 * len(self.routing.tile_experts),
            "weights": 4 * self._sorted_rows,
            "unused": 16,
        }

    def _argument_values(self) -> dict[str, int | float]:
        sizes, tiles = self.sizes, -(-self._sorted_rows // self.named.tile_m)
        columns = sizes.inter_dim if self.kind.family.stage == "1" else sizes.model_dim
        limit = SWIGLU_LIMIT if self.file.activation == "swiglu" else float("inf")
        numbers: dict[str, int | float] = {
            "tokens": self.routing.tokens,
            "rows": 2 * sizes.inter_dim,
            "model_dim": sizes.model_dim,
            "inter_dim": sizes.inter_dim,
            "tiles": tiles,
            "slots": COMPUTE_UNITS if self.kind.persistent else tiles,
            "blocks": tiles * (columns // (self.named.called.block_columns or self.kind.tile_n)),
            "no_pad": 0,
            "beta": SITU_BETA,
            "inverse_beta": 1 / SITU_BETA,
            "linear_beta": SITU_LINEAR_BETA,
            "inverse_linear_beta": 1 / SITU_LINEAR_BETA,
            "swiglu_limit": limit,
        }
        return numbers | {name: self.memory.address(name) for name in self._buffer_sizes()}

    def _second_stage(self) -> Floats:
        rows = self._rows()
        if self.named.called.sorted_output:  # a kernel of AITER's own weighs and adds them
            return self._added(rows)
        summed: Floats = rows.reshape(self.routing.tokens, -1, rows.shape[1]).sum(1)
        return summed

    def _added(self, rows: Floats) -> Floats:
        """Return the sum over each token's rows, with their routing weights."""
        source, weights = self.routing.rows_of_input(per_slot=False), self.routing.weights.astype(np.float64)
        summed = np.zeros((self.routing.tokens, rows.shape[1]))
        used = source >= 0
        np.add.at(summed, source[used], rows[: len(source)][used] * weights[used, None])
        return summed

    def _first_stage(self) -> Floats:
        rows, routing = self._rows(), self.routing
        if self.named.called.sorted_output:
            by_token = np.zeros((routing.tokens * routing.top_k, rows.shape[1]))
            source = routing.rows_of_input(per_slot=True)
            by_token[source[source >= 0]] = rows[: len(source)][source >= 0]
            rows = by_token
        if self.kind.family.output == "partial":
            gate, up = np.split(rows, 2, 1)
            rows = combine(gate, up, self.file.activation)  # AITER does this afterwards, in a kernel of its own
        return rows.reshape(routing.tokens, routing.top_k, -1)

    def _rows(self) -> Floats:
        """Return the output as numbers, shape `_out_shape`."""
        raw, output = self.memory.bytes_of("out"), self.kind.family.output
        if output == "f16":
            return raw.view(np.float16).astype(np.float64).reshape(self._out_shape)
        if output not in QUANTIZED:
            return bf16_to_float(raw.view(np.uint16)).astype(np.float64).reshape(self._out_shape)
        number_format = FORMATS[QUANTIZED[output]]
        values = number_format.decode(_unpack(raw, number_format.bits), self.arch).reshape(self._out_shape)
        scaled: Floats = values * np.repeat(self._out_scales(), MX_GROUP, 1)
        return scaled

    def _out_scales(self) -> Floats:
        """Return the scale of each row and group that the kernel wrote, in the order of the output's rows."""
        rows, columns = self._out_shape
        groups = columns // MX_GROUP
        if self.named.called.plain_scales:
            plain = self.memory.bytes_of("out_scale")[: rows * groups].astype(np.float64)
            return np.exp2(plain - E8M0_BIAS).reshape(rows, groups)
        shape = (1, self._padded_scale_rows, _padded_groups(columns))
        exponents = self.memory.bytes_of("out_scale")[addresses_in(self._scale_layout, shape)[0]].astype(np.float64)
        written = np.exp2(exponents - E8M0_BIAS)[self._scale_rows, :groups]
        found = np.zeros((rows, groups))
        if self.named.called.sorted_output:
            found[: len(written)] = written
            return found
        source = self.routing.rows_of_input(per_slot=True)
        found[source[source >= 0]] = written[source >= 0]
        return found


def _padded_groups(columns: int) -> int:
    return -(-(columns // MX_GROUP) // SCALE_GROUPS) * SCALE_GROUPS


def _unpack(raw: Bytes, bits: int) -> NDArray[np.uint16]:
    if bits == 8:
        return raw.astype(np.uint16)
    return np.stack([raw & 15, raw >> 4], -1).reshape(-1).astype(np.uint16)
