"""Numbers of a kernel with each layout: relative L2 against float64."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.derive.kernels.layer_run import MX_GROUP, LayerRun
from preshuffle.layouts.derive.kernels.placement import fits, place, place_codes
from preshuffle.layouts.derive.kernels.random_layer import (
    E8M0_BIAS,
    expected,
    random_layer,
)
from preshuffle.layouts.derive.kernels.weight_formats import Floats
from preshuffle.layouts.emulator import float_to_bf16
from preshuffle.registry import Layout

Assignment = Mapping[str, Layout]
"""Layout of each role."""


class NumbersTrial:
    """One random layer on one kernel, tried with layouts."""

    def __init__(self, run: LayerRun, layouts: Mapping[str, Layout], activation: str = "silu") -> None:
        """Draw the layer and compute its float64 result."""
        self.run, self.layouts = run, layouts
        self.layer = random_layer(run)
        self.expected = expected(run, self.layer, activation)
        self._used = np.zeros((run.routing.tokens, run.routing.top_k), np.bool_)
        for token, slot, _, _ in run.routing.rows:
            self._used[token, slot] = True
        run.set_activations(self.layer.codes["x"])
        if run.adds_bias:
            run.set_tensors({"bias": self.layer.bias.astype(np.float32)})
        if run.kind.family.smooth:
            run.set_tensors({"smooth": self.layer.smooth.astype(np.float32)})
        if run.kind.family.scaled_activations:
            run.set_tensors({"x_scale": placed_activation_scales(run, self.layer.scales["x"], layouts)})

    def relative_error(self, assignment: Assignment) -> float:
        """Return the relative L2 of the output with these layouts."""
        run = self.run
        for role, layout in assignment.items():
            run.set_tensors({buffer_of(role): self.tensor(role, layout)})
        found = run.run()
        used = self._used if run.kind.family.stage == "1" else self._used.any(1)
        width = self.expected.shape[-1] - self._pad
        difference, wanted = (found - self.expected)[used][:, :width], self.expected[used][:, :width]
        return float(np.linalg.norm(difference) / np.linalg.norm(wanted))

    @property
    def _pad(self) -> int:
        """Columns of the output that are padding, which a kernel may leave."""
        sizes = self.run.sizes
        return sizes.intermediate_pad if self.run.kind.family.stage == "1" else sizes.hidden_pad

    def tensor(self, role: str, layout: Layout) -> NDArray[np.generic]:
        """Return a weight or its scales as they lie in memory."""
        if role.endswith("_scale"):
            return placed_scales(self.run, self.layer.scales[role.removesuffix("_scale")], layout)
        return place_codes(self.layer.codes[role], self.run.format, layout)

    def candidates(self, role: str) -> dict[str, Layout]:
        """Return the layouts of the book that this role can be in."""
        scales = role.endswith("_scale")
        kind = self.run.kind.family.scale
        if scales and kind not in ("mx", "group"):
            return {"plain": self.layouts["plain"]}
        shape = unit_shape(self.run, role)
        units = ("group", "any") if scales and kind == "mx" else ("byte", "any")
        return {id: layout for id, layout in self.layouts.items() if layout.unit in units and fits(layout, shape)}


def unit_shape(run: LayerRun, role: str) -> tuple[int, int, int]:
    """Return experts, rows and K of a role in its layout's units.

    Bytes of a weight or of bf16 scales, groups of e8m0 scales.
    """
    experts, rows, k = run.sizes.shape(role)
    if role.endswith("_scale"):
        return experts, rows, k // MX_GROUP * (2 if run.kind.family.scale == "group" else 1)
    return experts, rows, run.format.units_of_k(k)


def buffer_of(role: str) -> str:
    """Return the buffer that holds a role."""
    return role.replace("_weight", "")


def placed_scales(run: LayerRun, scales: Floats, layout: Layout) -> NDArray[np.generic]:
    """Return a weight's scales as they lie in memory."""
    if run.kind.family.scale == "mx":
        return place(e8m0(scales), layout)
    if run.kind.family.scale == "group":
        codes = float_to_bf16(scales)
        return place(codes.view(np.uint8).reshape(*codes.shape[:2], -1), layout)
    return scales.astype(np.float32)


def e8m0(scales: Floats) -> NDArray[np.uint8]:
    """Return powers of two as e8m0 bytes."""
    return (np.log2(scales) + E8M0_BIAS).astype(np.uint8)


def placed_activation_scales(run: LayerRun, scales: Floats, layouts: Mapping[str, Layout]) -> NDArray[np.generic]:
    """Return scales ``[tokens, groups]`` as AITER passes them."""
    kind = run.kind.family.scale
    if kind == "block":
        return np.ascontiguousarray(scales.astype(np.float32).T)
    if kind != "mx":
        return scales.astype(np.float32)
    groups = scales.shape[1]
    rows = np.full((1, -(-len(run.routing.sorted_ids) // 256) * 256, -(-groups // 8) * 8), E8M0_BIAS, np.uint8)
    source = run.routing.rows_of_input(per_slot=run.kind.family.stage == "2")
    rows[0, : len(source), :groups] = np.where(source[:, None] < 0, E8M0_BIAS, e8m0(scales)[source])
    return place(rows, layouts["e8"])
