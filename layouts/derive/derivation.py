"""Derivation of a kernel: addresses, names and numbers of every role."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from preshuffle.layouts.derive.claims import claimed_stage
from preshuffle.layouts.derive.derive_roles import RoleDeriver, to_bytes
from preshuffle.layouts.derive.errors import DeriveError
from preshuffle.layouts.derive.kernels.kernel_family import KernelKind, kind_of
from preshuffle.layouts.derive.kernels.kernel_run import BLOCK, KernelRun, LayerSizes
from preshuffle.layouts.derive.kernels.numbers import NumbersTrial
from preshuffle.layouts.derive.kernels.random_layer import random_routing
from preshuffle.layouts.derive.kernels.weight_formats import FORMATS
from preshuffle.layouts.derive.pattern_of import is_layout_of, pattern_of
from preshuffle.layouts.derive.result import KernelDerivation, RoleDerivation
from preshuffle.layouts.derive.tagging import AddressMap, Positions
from preshuffle.layouts.emulator import CodeObject, Program
from preshuffle.registry import Layout
from preshuffle.registry.loading import Book

EXPERTS = 2
LEAST_K = 256
WIDER_K = 512
Progress = Callable[[str], None]


class KernelDeriver:
    """Kernel and the layouts of a book, for derivation and for numbers."""

    def __init__(self, code: CodeObject, stem: str, book: Book) -> None:
        """Prepare a kernel; its file's stem says how it is called."""
        self.kind: KernelKind = kind_of(stem)
        self.layouts: dict[str, Layout] = {id: entry.layout() for id, entry in book.layouts.items()}
        self.program = Program(code)
        self.claim = claimed_stage(book.families, self.kind.family, code.name)

    def derive(
        self, roles: Iterable[str] | None = None, numbers: bool = True, progress: Progress = lambda line: None
    ) -> KernelDerivation:
        """Derive the roles of the kernel, all where none is named.

        Raises:
            DeriveError: the kernel has no such role.
        """
        asked = self._asked(roles)
        not_modelled = dict(self.program.not_modelled())
        found = {} if not_modelled else self._roles(asked, progress)
        pairs: dict[str, float] = {}
        if found and numbers:
            found, pairs = self._with_numbers(found, progress)
        code, sizes = self.program.code, self._sizes(LEAST_K, 1 if self._both_stages else 2)
        return KernelDerivation(
            kernel=code.name,
            arch=code.arch,
            sha256=code.sha256,
            family=self.kind.family.id,
            book_family=self.claim.family,
            sizes={"experts": sizes.experts, "inter_dim": sizes.inter_dim, "model_dim": sizes.model_dim},
            roles=found,
            pairs=pairs,
            not_modelled=not_modelled,
        )

    def numbers(self) -> NumbersTrial:
        """Return a random layer on the kernel, to be tried with layouts."""
        sizes = self._sizes(WIDER_K, 2)
        return NumbersTrial(
            KernelRun(self.program, self.kind, sizes, random_routing(sizes, self.kind.tile_m)), self.layouts
        )

    @property
    def _both_stages(self) -> bool:
        return self.kind.family.stage == "1-stage"

    def _asked(self, roles: Iterable[str] | None) -> tuple[str, ...]:
        known = self.kind.family.roles
        asked = known if roles is None else tuple(roles)
        unknown = [role for role in asked if role not in known]
        if unknown:
            raise DeriveError(f"{self.kind.family.id} has no role {', '.join(unknown)}; valid: {', '.join(known)}")
        return asked

    def _sizes(self, k: int, column_blocks: int) -> LayerSizes:
        inter_dim = column_blocks * self.kind.tile_n
        return LayerSizes(EXPERTS, inter_dim, self._model_dim(k, inter_dim), self.kind.family.gated)

    def _model_dim(self, k: int, inter_dim: int) -> int:
        """Return the layer's width; for both stages at least as wide as the columns between them."""
        if not self._both_stages or inter_dim <= k:
            return k
        return -(-inter_dim // WIDER_K) * WIDER_K  # their loops over w2 take whole multiples

    def _roles(self, asked: tuple[str, ...], progress: Progress) -> dict[str, RoleDerivation]:
        named = self._weights(asked, progress)
        for role in asked:
            if role.endswith("_scale"):
                progress(f"{role}: running on tagged tensors")
                named[role] = self._scale(role, named)
        return {role: named[role].compared(self.claim.reads.get(role)) for role in asked}

    def _weights(self, asked: tuple[str, ...], progress: Progress) -> dict[str, RoleDerivation]:
        """Derive the weights that are asked for, and those through which others are read."""
        deriver = self._deriver(LEAST_K, 1 if self._both_stages else 2)
        if not self._both_stages:
            if not any(role.startswith("w13") for role in asked if not role.endswith("_scale")):
                return {}
            progress("w13_weight: running on tagged tensors")
            return {"w13_weight": self._name(deriver, "w13_weight", deriver.derive("w13_weight"))}
        layout, w2 = self._w2_through_some_layout(deriver, progress)
        progress("w13_weight: running on tagged tensors, w2_weight as derived")
        w13 = deriver.derive("w13_weight", w2=w2)
        return {
            "w13_weight": self._name(deriver, "w13_weight", w13, "w2_weight as derived"),
            "w2_weight": self._name(deriver, "w2_weight", w2, f"w13_weight in {layout}"),
        }

    def _scale(self, role: str, weights: Mapping[str, RoleDerivation]) -> RoleDerivation:
        """Derive scales at a size that has two tiles of groups."""
        if not self._both_stages:
            deriver = self._deriver(WIDER_K, 2)
            return self._name(deriver, role, deriver.derive(role))
        deriver = self._deriver(WIDER_K, -(-WIDER_K // self.kind.tile_n))
        other = "w2_weight" if role.startswith("w13") else "w13_weight"
        pattern = weights[other].pattern
        if pattern is None:
            raise DeriveError(f"{role} is read through {other}, whose addresses give no pattern")
        through = deriver.positions_of(other, Layout.of("derived", pattern, "byte"))
        return self._name(deriver, role, deriver.derive(role, w2=through, w13=through), f"{other} as derived")

    def _deriver(self, k: int, column_blocks: int) -> RoleDeriver:
        return RoleDeriver(self.program, self.kind, self._sizes(k, column_blocks), self.layouts)

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
        bits = (8 if family.scale == "mx" else 32) if scale else FORMATS[family.weight_format].bits
        elements = int(np.prod(deriver.sizes.shape(role)))
        count = deriver.scale_count(role) if scale else elements
        addresses = _by_block(found.positions) if scale and family.scale == "block" else found.positions
        if not scale:
            addresses = to_bytes(addresses, bits)
        known = not found.conflicts and addresses.size > 0
        names = [id for id, layout in self.layouts.items() if known and is_layout_of(layout, addresses)]
        gated = role.startswith("w13") and deriver.sizes.gated
        return RoleDerivation(
            layout=names[0] if names else None,
            others=tuple(names[1:]),
            pattern=pattern_of(addresses, "group" if scale else "byte", gated) if known else None,
            bytes=count * bits // 8,
            derived=len(np.unique(found.positions[found.positions >= 0])) * bits // 8,
            conflicts=found.conflicts,
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
            layouts = trial.candidates(role).items()
            tried = {id: trial.relative_error({**base, role: layout}) for id, layout in layouts}
            numbered[role] = derived.altered(tried=tried)
        return numbered, self._pairs(trial, base, found)

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
        return self.layouts[found.layout] if found is not None and found.layout is not None else self.usual_layout(role)

    def usual_layout(self, role: str) -> Layout:
        """Return the layout that kernels of this family usually read."""
        if role.endswith("_scale"):
            return self.layouts["e8" if self.kind.family.scale == "mx" else "plain"]
        return self.layouts["sep16"]


def _by_block(positions: Positions) -> Positions:
    """Return one position per block of rows; unchanged where the rows of a block differ."""
    blocks = positions[:, ::BLOCK]
    return blocks if (np.repeat(blocks, BLOCK, 1) == positions).all() else positions
