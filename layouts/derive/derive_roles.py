"""Derivation of each role's addresses, by stage and scale."""

from dataclasses import dataclass

import numpy as np

from preshuffle.layouts.derive.errors import DeriveError
from preshuffle.layouts.derive.kernels.derivable import DerivableKernel
from preshuffle.layouts.derive.kernels.kernel_family import KernelKind
from preshuffle.layouts.derive.kernels.layer_run import BLOCK, MX_GROUP, LayerSizes
from preshuffle.layouts.derive.kernels.placement import addresses_in, fits
from preshuffle.layouts.derive.kernels.weight_formats import FORMATS, Levels
from preshuffle.layouts.derive.probe_run import (
    COARSE_SCALES,
    FINE_SCALES,
    LINEAR_POWERS,
    LINEAR_SCALES,
    POWERS_OF_TWO,
    SIGNED_SCALES,
    ProbeRun,
)
from preshuffle.layouts.derive.tagging import UNKNOWN, AddressMap, OutputTable, Positions
from preshuffle.registry import Layout


@dataclass(frozen=True, slots=True)
class RoleDeriver:
    """Kernel whose tensors' addresses are derived, at one size.

    For kernels of both stages w2 is read through a w13 in some layout, and w13 then through the w2 that was found: the
    order of the columns between the stages is the kernel's own affair, so that this fixes all that can be seen. A w13
    in a wrong layout gives conflicts in w2.
    """

    kernel: DerivableKernel
    sizes: LayerSizes
    layouts: dict[str, Layout]

    @property
    def kind(self) -> KernelKind:
        """How the kernel is called."""
        return self.kernel.kind

    def derive(self, role: str, w2: AddressMap | None = None, w13: AddressMap | None = None) -> AddressMap:
        """Return where the kernel reads every element of a role from.

        Args:
            role: a weight or its scales.
            w2: for w13 of a kernel of both stages, where it reads w2.
            w13: for w2 of a kernel of both stages, where it reads w13.
        """
        weight = role.removesuffix("_scale")
        through = w2 if weight == "w13_weight" else w13
        if self.kind.family.stage == "1-stage" and through is None:
            raise DeriveError(f"{role} of a kernel of both stages is derived through the other weight")
        if weight == "w13_weight":
            return self._w13_scale(through) if role != weight else self._w13(through)
        return self._w2_scale(through) if role != weight else self._w2(through)

    def scale_count(self, role: str) -> int:
        """Return how many scales a role's weight has."""
        experts, rows, k = self.sizes.shape(role)
        per_expert = {"row": rows, "block": (rows // BLOCK) * (k // BLOCK), "mx": rows * (k // MX_GROUP)}
        per_expert["group"] = per_expert["mx"]
        return experts * per_expert[self.kind.family.scale]

    def positions_of(self, role: str, layout: Layout) -> AddressMap | None:
        """Return where a weight in a layout would be read.

        In elements; None where the layout does not fit.
        """
        experts, rows, k = self.sizes.shape(role)
        number_format = FORMATS[self.kind.family.weight_format]
        shape = (experts, rows, number_format.bytes_of_k(k))
        return AddressMap(to_elements(addresses_in(layout, shape), number_format.bits)) if fits(layout, shape) else None

    def _w13(self, w2: AddressMap | None) -> AddressMap:
        probe = self._probe(range(self.sizes.model_dim))
        levels = self._levels_of_w13(probe)
        probe.activate(levels.activation)
        probe.fill_scales("w13_weight", levels.scale)
        self._select_by_w2(probe, w2)
        parts = probe.read_weight("w13_weight", self._table(levels), levels)
        return probe.by_expert([part[:, : self.sizes.inter_dim] for part in parts])

    def _w13_scale(self, w2: AddressMap | None) -> AddressMap:
        scale = self.kind.family.scale
        probe = self._probe(range(0, self.sizes.model_dim, self._step(self.sizes.model_dim)))
        levels = self._levels_of_w13_scale()
        probe.activate(1.0)
        probe.fill_weight("w13_weight", 1.0)
        self._select_by_w2(probe, w2)
        parts = probe.read_scales("w13_weight", self._table(levels), levels)
        return probe.by_expert([part[:, : self.sizes.inter_dim] for part in parts], shared=scale == "block")

    def _w2(self, w13: AddressMap | None) -> AddressMap:
        probe = self._probe(range(self.sizes.inter_dim))
        levels = probe.run.format.linear
        factor = self._activate_columns(probe, w13)
        probe.fill_scales("w2_weight", levels.scale)
        parts = probe.read_weight("w2_weight", OutputTable.of_values(levels, factor), levels)
        return probe.by_expert(parts)

    def _w2_scale(self, w13: AddressMap | None) -> AddressMap:
        probe = self._probe(range(0, self.sizes.inter_dim, self._step(self.sizes.inter_dim)))
        levels = LINEAR_POWERS if self.kind.family.scale == "mx" else LINEAR_SCALES
        factor = self._activate_columns(probe, w13)
        probe.fill_weight("w2_weight", 1.0)
        parts = probe.read_scales("w2_weight", OutputTable.of_values(levels, factor), levels)
        return probe.by_expert(parts, shared=self.kind.family.scale == "block")

    def _activate_columns(self, probe: ProbeRun, w13: AddressMap | None) -> float:
        """Let each token give one column between the stages; return that column's value.

        A kernel of stage 2 alone takes them as its input.
        """
        if w13 is None:
            probe.activate(1.0)
            return 1.0
        signs = probe.run.format.signs
        probe.activate(signs.activation)
        probe.fill_scales("w13_weight", signs.scale)
        probe.write_diagonal("w13_weight", w13.positions, abs(signs.weights[0]))
        return probe.hidden_of(float(signs.products.max()))

    def _select_by_w2(self, probe: ProbeRun, w2: AddressMap | None) -> None:
        """Let w2 pass every column between the stages on as it is."""
        if w2 is not None:
            linear = probe.run.format.linear
            weight = min(1 / linear.scale, max(linear.weights))
            probe.fill_scales("w2_weight", 1 / weight)
            probe.write_diagonal("w2_weight", w2.positions, weight)

    def _probe(self, probes: range) -> ProbeRun:
        return ProbeRun(self.kernel, self.sizes, self.layouts, probes)

    def _step(self, k: int) -> int:
        return {"row": k, "block": BLOCK}.get(self.kind.family.scale, MX_GROUP)

    def _table(self, levels: Levels) -> OutputTable:
        of = OutputTable.of_pairs if self.sizes.gated else OutputTable.of_gates
        return of(levels, self.kernel.activation)

    def _levels_of_w13(self, probe: ProbeRun) -> Levels:
        number_format, output = probe.run.format, self.kind.family.output
        if self.kind.family.stage == "1-stage" or output == "fp4_mx":
            return number_format.signs
        return number_format.coarse if output in ("fp8_block", "fp8_mx") else number_format.fine

    def _levels_of_w13_scale(self) -> Levels:
        family = self.kind.family
        if family.scale == "mx":
            return POWERS_OF_TWO
        if family.stage == "1-stage":
            return SIGNED_SCALES
        return COARSE_SCALES if family.output == "fp8_block" else FINE_SCALES


def to_elements(addresses: Positions, bits: int) -> Positions:
    """Return the positions of elements in bytes at these addresses.

    Shape ``[experts, rows, K]``.
    """
    if bits == 4:
        return (addresses[..., None] * 2 + np.arange(2)).reshape(*addresses.shape[:2], -1)
    return addresses[..., :: bits // 8] // (bits // 8)


def to_bytes(positions: Positions, bits: int) -> Positions:
    """Return the addresses of a weight's bytes.

    All are unknown where halves of bytes do not stay together.
    """
    if bits == 8:
        return positions
    if bits == 4:
        pairs = positions.reshape(*positions.shape[:2], -1, 2)
        together = (pairs[..., 0] % 2 == 0).all() and (pairs[..., 1] == pairs[..., 0] + 1).all()
        return pairs[..., 0] // 2 if together else np.full(pairs.shape[:3], UNKNOWN)
    size = bits // 8
    return (positions[..., None] * size + np.arange(size)).reshape(*positions.shape[:2], -1)
