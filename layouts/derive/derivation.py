"""Derivation of a kernel: addresses, names and numbers of every role."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from preshuffle.layouts.derive.claims import claimed_stage
from preshuffle.layouts.derive.derive_roles import RoleDeriver, to_bytes
from preshuffle.layouts.derive.errors import DeriveError
from preshuffle.layouts.derive.kernels.derivable import DerivableKernel
from preshuffle.layouts.derive.kernels.kernel_family import KernelKind
from preshuffle.layouts.derive.kernels.layer_run import BLOCK
from preshuffle.layouts.derive.kernels.numbers import NumbersTrial
from preshuffle.layouts.derive.kernels.random_layer import random_routing
from preshuffle.layouts.derive.kernels.weight_formats import FORMATS
from preshuffle.layouts.derive.pattern_of import is_layout_of, pattern_of
from preshuffle.layouts.derive.result import KernelDerivation, RoleDerivation
from preshuffle.layouts.derive.tagging import AddressMap, Positions
from preshuffle.registry import Layout
from preshuffle.registry.kernels import Packing
from preshuffle.registry.loading import Book

SCALE_BITS = {"mx": 8, "group": 16}
RIGHT = 0.3
"""Relative L2 below which an output is right: 0.22 with fp4 input and output, 0.7 with the best wrong layout."""

Progress = Callable[[str], None]


class KernelDeriver:
    """Kernel and the layouts of a book, for derivation and for numbers."""

    def __init__(self, kernel: DerivableKernel, book: Book) -> None:
        """Take a kernel and the layouts and claims of a book."""
        self.kernel = kernel
        self.layouts: dict[str, Layout] = {id: entry.layout() for id, entry in book.layouts.items()}
        self.packings: Mapping[str, Packing] = book.entries["packings"]
        self.claim = claimed_stage(book.families, kernel)

    @property
    def kind(self) -> KernelKind:
        """How the kernel is called."""
        return self.kernel.kind

    def derive(
        self, roles: Iterable[str] | None = None, numbers: bool = True, progress: Progress = lambda line: None
    ) -> KernelDerivation:
        """Derive the roles of the kernel, all where none is named.

        Raises:
            DeriveError: the kernel has no such role.
        """
        requested = self._requested(roles)
        not_modelled = dict(self.kernel.not_modelled())
        pairs: dict[str, float] = {}
        if not_modelled:
            found: dict[str, RoleDerivation] = {}
        elif self.kernel.sizes().padded:
            found = self._by_numbers(requested, progress)
        else:
            found = self._roles(requested, progress)
        if found and numbers and not self.kernel.sizes().padded:
            found, pairs = self._with_numbers(found, progress)
        kernel, sizes = self.kernel, self.kernel.sizes()
        return KernelDerivation(
            kernel=kernel.name,
            arch=kernel.arch,
            sha256=kernel.sha256,
            aiter=kernel.aiter,
            compiler=kernel.compiler,
            machine_code=kernel.machine_code,
            family=self.kind.family.id,
            book_family=self.claim.family,
            sizes={"experts": sizes.experts, "inter_dim": sizes.inter_dim, "model_dim": sizes.model_dim},
            roles=found,
            pairs=pairs,
            not_modelled=not_modelled,
        )

    def numbers(self) -> NumbersTrial:
        """Return a random layer on the kernel, to be tried with layouts."""
        sizes = self.kernel.sizes(wide=True)
        run = self.kernel.run(sizes, random_routing(sizes, self.kind.tile_m))
        return NumbersTrial(run, self.layouts, self.kernel.activation)

    @property
    def _both_stages(self) -> bool:
        return self.kind.family.stage == "1-stage"

    def _requested(self, roles: Iterable[str] | None) -> tuple[str, ...]:
        known = self.kind.family.roles
        requested = known if roles is None else tuple(roles)
        unknown = [role for role in requested if role not in known]
        if unknown:
            raise DeriveError(f"{self.kind.family.id} has no role {', '.join(unknown)}; valid: {', '.join(known)}")
        return requested

    def _roles(self, requested: tuple[str, ...], progress: Progress) -> dict[str, RoleDerivation]:
        named = self._weights(requested, progress)
        for role in requested:
            if role.endswith("_scale"):
                progress(f"{role}: running on tagged tensors")
                named[role] = self._scale(role, named)
        return {role: named[role].compared(self.claim.reads.get(role)) for role in requested}

    def _by_numbers(self, requested: tuple[str, ...], progress: Progress) -> dict[str, RoleDerivation]:
        """Return the only layout of each role that gives the numbers.

        A kernel may skip what is padding, whose addresses then cannot be derived.
        """
        trial, found = self.numbers(), {}
        base = {role: self.usual_layout(role) for role in self.kind.family.roles}
        for role in requested:
            progress(f"{role}: numbers with each layout")
            tried = self._tried(trial, base, role)
            right = [name for name, error in tried.items() if error < RIGHT]
            layout = right[0] if len(right) == 1 else None
            size = int(trial.tensor(role, base[role]).nbytes)
            found[role] = RoleDerivation(
                layout=layout, pattern=None, bytes=size, derived=0, conflicts=0, tried=tried, how="numbers"
            ).compared(self.claim.reads.get(role))
        return found

    def _weights(self, requested: tuple[str, ...], progress: Progress) -> dict[str, RoleDerivation]:
        """Derive the requested weights, and those through which others are read."""
        deriver = self._deriver()
        if not self._both_stages:
            weights = [role for role in requested if not role.endswith("_scale")]
            for role in weights:
                progress(f"{role}: running on tagged tensors")
            return {role: self._name(deriver, role, deriver.derive(role)) for role in weights}
        layout, w2 = self._w2_through_some_layout(deriver, progress)
        progress("w13_weight: running on tagged tensors, w2_weight as derived")
        w13 = deriver.derive("w13_weight", w2=w2)
        return {
            "w13_weight": self._name(deriver, "w13_weight", w13, "w2_weight as derived"),
            "w2_weight": self._name(deriver, "w2_weight", w2, f"w13_weight in {layout}"),
        }

    def _scale(self, role: str, weights: Mapping[str, RoleDerivation]) -> RoleDerivation:
        """Derive scales at a size that has two tiles of groups."""
        deriver = self._deriver(wide=True)
        if not self._both_stages:
            return self._name(deriver, role, deriver.derive(role))
        other = "w2_weight" if role.startswith("w13") else "w13_weight"
        pattern = weights[other].pattern
        if pattern is None:
            raise DeriveError(f"{role} is read through {other}, whose addresses give no pattern")
        through = deriver.positions_of(other, Layout.of("derived", pattern, "byte"))
        return self._name(deriver, role, deriver.derive(role, w2=through, w13=through), f"{other} as derived")

    def _deriver(self, wide: bool = False) -> RoleDeriver:
        return RoleDeriver(self.kernel, self.kernel.sizes(wide), self.layouts)

    def _w2_through_some_layout(self, deriver: RoleDeriver, progress: Progress) -> tuple[str | None, AddressMap]:
        """Read w2 through a w13 in each layout until one gives no conflict; else return the best."""
        best: tuple[str | None, AddressMap] | None = None
        for id in sorted(self.layouts, key=lambda id: id != "sep16"):  # the most common one first
            w13 = deriver.positions_of("w13_weight", self.layouts[id])
            if w13 is None or self.layouts[id].unit == "group":
                continue
            progress(f"w2_weight: running on tagged tensors, w13_weight in {id}")
            found = deriver.derive("w2_weight", w13=w13)
            if best is None or found.conflicts < best[1].conflicts:
                best = id, found
            if not found.conflicts:
                break
        if best is None:
            raise DeriveError("no layout of the book fits the shape of w13")
        return best

    def _name(self, deriver: RoleDeriver, role: str, found: AddressMap, through: str | None = None) -> RoleDerivation:
        scale, family = role.endswith("_scale"), self.kind.family
        number_format = FORMATS[family.weight_format]
        bits = SCALE_BITS.get(family.scale, 32) if scale else number_format.bits
        elements = int(np.prod(deriver.sizes.shape(role)))
        count = deriver.scale_count(role) if scale else elements
        addresses = _by_block(found.positions) if scale and family.scale == "block" else found.positions
        if not scale:
            addresses = to_bytes(number_format.unit_positions(addresses), number_format.unit_bits)
        elif family.scale == "group":
            addresses = to_bytes(addresses, bits)
        known = not found.conflicts and addresses.size > 0
        fitting = (id for id, layout in self.layouts.items() if known and is_layout_of(layout, addresses))
        names = [self._packed_name(id, role) for id in fitting]
        gated = role.startswith("w13") and deriver.sizes.gated
        return RoleDerivation(
            layout=names[0] if names else None,
            others=tuple(names[1:]),
            pattern=pattern_of(addresses, "group" if scale and bits != 16 else "byte", gated) if known else None,
            bytes=count * bits // 8,
            derived=len(np.unique(found.positions[found.positions >= 0])) * bits // 8,
            conflicts=found.conflicts,
            shape=(addresses.shape[0], addresses.shape[1], addresses.shape[2]),
            through=through,
        )

    def _with_numbers(
        self, found: Mapping[str, RoleDerivation], progress: Progress
    ) -> tuple[dict[str, RoleDerivation], dict[str, float]]:
        """Try every layout of every role, and pairs of interleaved ones."""
        trial = self.numbers()
        base = {role: self._assumed(role, found) for role in self.kind.family.roles}
        numbered: dict[str, RoleDerivation] = {}
        for role, derived in found.items():
            progress(f"{role}: numbers with each layout")
            tried = self._tried(trial, base, role)
            numbered[role] = derived.altered(tried=tried)
        return numbered, self._pairs(trial, base, found)

    def _tried(self, trial: NumbersTrial, base: Mapping[str, Layout], role: str) -> dict[str, float]:
        """Return the numbers with a role in each layout that fits it, the others in theirs."""
        layouts = trial.candidates(role).items()
        return {self._packed_name(id, role): trial.relative_error({**base, role: layout}) for id, layout in layouts}

    def _pairs(
        self, trial: NumbersTrial, base: Mapping[str, Layout], found: Mapping[str, RoleDerivation]
    ) -> dict[str, float]:
        roles = ("w13_weight", "w13_weight_scale")
        if self.kind.family.scale != "mx" or any(role not in found for role in roles):
            return {}
        weights, scales = (
            {id: layout for id, layout in trial.candidates(role).items() if layout.pattern.interleaves_gate_up}
            for role in roles
        )
        return {
            f"{weight} + {scale}": trial.relative_error({**base, roles[0]: weights[weight], roles[1]: scales[scale]})
            for weight in weights
            for scale in scales
        }

    def _assumed(self, role: str, named: Mapping[str, RoleDerivation]) -> Layout:
        """Return the layout of a role while another is tried: the derived one, else the usual one."""
        found = named.get(role)
        return self.usual_layout(role) if found is None or found.layout is None else self._unpacked(found.layout)

    def usual_layout(self, role: str) -> Layout:
        """Return the layout that the book claims, else a usual one.

        A usual one is read by other kernels of the family.
        """
        if role in self.claim.reads:
            return self._unpacked(self.claim.reads[role])
        if role.endswith("_scale"):
            return self.layouts["e8" if self.kind.family.scale == "mx" else "plain"]
        return self.layouts["sep16"]

    def _packed_name(self, layout: str, role: str) -> str:
        """Return the packing of values that lie in a layout, where they are packed; else the layout."""
        scale, family = role.endswith("_scale"), self.kind.family
        under = [id for id, packing in self.packings.items() if packing.under == layout]
        if scale:
            return under[0] if family.scale == "group" and len(under) == 1 else layout
        named = f"{layout}_{family.weight_format}"
        return named if named in under else layout

    def _unpacked(self, name: str) -> Layout:
        packing = self.packings.get(name)
        return self.layouts[name if packing is None or packing.under is None else packing.under]


def _by_block(positions: Positions) -> Positions:
    """Return one position per block of rows; unchanged where the rows of a block differ."""
    blocks = positions[:, ::BLOCK]
    return blocks if (np.repeat(blocks, BLOCK, 1) == positions).all() else positions
