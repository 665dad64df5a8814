"""Runs in which each token activates one element."""

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.derive.kernels.activations import ALONE, combine
from preshuffle.layouts.derive.kernels.derivable import DerivableKernel
from preshuffle.layouts.derive.kernels.layer_run import BLOCK, MX_GROUP, LayerSizes
from preshuffle.layouts.derive.kernels.numbers import buffer_of, placed_activation_scales
from preshuffle.layouts.derive.kernels.random_layer import E8M0_BIAS, between_stages
from preshuffle.layouts.derive.kernels.routing import sort_into_tiles
from preshuffle.layouts.derive.kernels.weight_formats import Codes, Floats, Levels
from preshuffle.layouts.derive.tagging import AddressMap, OutputTable, Positions, one_hot_tokens, read_positions
from preshuffle.layouts.emulator import float_to_bf16
from preshuffle.registry import Layout

FINE_SCALES = Levels((-15.0, -12.0, -9.0, -3.75, 0.5, 0.8125, 1.125, 3.75))
COARSE_SCALES = Levels((-2.5, -0.8125, 0.6875, 2.75))
SIGNED_SCALES = Levels((-2.0, 2.0))
LINEAR_SCALES = Levels((-4.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 4.0))
POWERS_OF_TWO = Levels((1.0, 2.0), tolerance=0.35)
LINEAR_POWERS = Levels((0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0))


class ProbeRun:
    """Kernel on tokens that activate one k of one expert each."""

    def __init__(self, kernel: DerivableKernel, sizes: LayerSizes, layouts: dict[str, Layout], probes: range) -> None:
        """Prepare a token for every k of ``probes``."""
        self.kind, self.sizes, self.probes = kernel.kind, sizes, probes
        self._activation = kernel.activation
        count = len(self.probes)
        tokens = [list(range(expert * count, (expert + 1) * count)) for expert in range(sizes.experts)]
        routing = sort_into_tiles(tokens, sizes.experts * count, self.kind.tile_m, least_top_k=kernel.top_k)
        self.run = kernel.run(sizes, routing)
        rows, k = self.run.x_shape
        if self.kind.family.scaled_activations:
            groups = {"mx": k // MX_GROUP, "block": k // BLOCK}.get(self.kind.family.scale, 1)
            ones = np.ones((rows, groups))
            self.run.set_tensors({"x_scale": placed_activation_scales(self.run, ones, layouts)})
        self._chosen = np.zeros((rows, k), np.bool_)
        self._chosen[:: rows // routing.tokens] = one_hot_tokens(sizes.experts, self.probes, k)

    def activate(self, value: float) -> None:
        """Write the activations: ``value`` at each token's k, zeros elsewhere."""
        codes = self.run.x_format.encode(np.where(self._chosen, value, 0.0), self.run.arch)
        self.run.set_activations(codes)

    def fill_weight(self, role: str, value: float) -> None:
        """Write a weight that is the same everywhere."""
        count = int(np.prod(self.sizes.shape(role)))
        self.run.set_tensors({buffer_of(role): self.run.format.pack(np.repeat(self._encode(value), count))})

    def fill_scales(self, role: str, value: float) -> None:
        """Write scales of a weight that are the same everywhere."""
        self.run.set_tensors({f"{buffer_of(role)}_scale": self._scales(np.full(self.scales_of(role), value))})

    def write_diagonal(self, role: str, positions: Positions, value: float) -> None:
        """Write a weight that is ``value`` on the diagonal, at known positions.

        Of w13 both gate and up have a diagonal.
        """
        _, rows, k = positions.shape
        half = rows // 2 if role == "w13_weight" and self.sizes.gated else rows
        row = np.arange(rows) % half
        logical = np.where(row[:, None] == np.arange(k)[None, :], value, 0.0)
        memory = np.zeros(positions.size, np.uint16)
        memory[positions.reshape(-1)] = np.broadcast_to(self._encode(logical), positions.shape).reshape(-1)
        self.run.set_tensors({buffer_of(role): self.run.format.pack(memory)})

    def read_weight(self, role: str, table: OutputTable, levels: Levels) -> list[Positions]:
        """Return the positions of the weights behind every output.

        Shape ``[tokens, columns]``, gate before up.
        """
        codes = self._encode(np.array(levels.weights))
        count = int(np.prod(self.sizes.shape(role)))

        def write(digits: Positions) -> None:
            self.run.set_tensors({buffer_of(role): self.run.format.pack(codes[digits])})

        return read_positions(self._columns, write, count, table)

    def read_scales(self, role: str, table: OutputTable, levels: Levels) -> list[Positions]:
        """Return the positions of the scales behind every output.

        Shape ``[tokens, columns]``, gate before up.
        """
        values = np.array(levels.weights)

        def write(digits: Positions) -> None:
            self.run.set_tensors({f"{buffer_of(role)}_scale": self._scales(values[digits])})

        return read_positions(self._columns, write, self.scales_of(role), table)

    def scales_of(self, role: str) -> int:
        """Return how many scales a weight has."""
        return self.run.scale_size(role) // {"mx": 1, "group": 2}.get(self.kind.family.scale, 4)

    def hidden_of(self, gate: float) -> float:
        """Return the activation between the stages where gate and up are equal."""
        hidden = np.zeros(MX_GROUP)
        column, activation = np.array([gate]), self._activation
        hidden[:1] = combine(column, column, activation) if self.sizes.gated else ALONE[activation](column)
        return float(between_stages(hidden, self.kind.family.between)[0])

    def by_expert(self, parts: list[Positions], shared: bool = False) -> AddressMap:
        """Return positions ordered by expert, row and k: gate rows first."""
        both = np.concatenate(parts, 1)
        grouped = both.reshape(self.sizes.experts, len(self.probes), both.shape[1])
        return AddressMap(np.ascontiguousarray(grouped.transpose(0, 2, 1)), shared)

    def _columns(self) -> Floats:
        found = self.run.run()
        return found[:, 0] if found.ndim == 3 else found

    def _encode(self, values: NDArray[np.float64] | float) -> Codes:
        return self.run.format.encode(values, self.run.arch)

    def _scales(self, values: Floats) -> NDArray[np.generic]:
        if self.kind.family.scale == "mx":
            return (np.log2(values) + E8M0_BIAS).astype(np.uint8)
        if self.kind.family.scale == "group":
            return float_to_bf16(values)
        return values.astype(np.float32)
