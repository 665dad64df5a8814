"""Results of a derivation, as ``preshuffle derive --json`` prints them."""

from typing import Literal

from pydantic import Field

from preshuffle.registry.base.frozen import Frozen

Verdict = Literal["agrees", "disagrees", "unclaimed", "not derived"]


class RoleDerivation(Frozen):
    """How a kernel reads one role.

    Attributes:
        layout: of the book, that has every byte where the kernel reads it.
        others: further layouts of the book that do, at this size.
        pattern: the einops line that the addresses give.
        claimed: the layout that the book says this kernel reads.
        verdict: of the comparison with that.
        bytes: of the tensor.
        derived: bytes whose element is known.
        conflicts: elements without an address, and of those at one address all but one.
        tried: relative L2 of the kernel's output by layout, the other roles in theirs.
        shape: experts, rows and K in units of the layout: bytes, or groups of e8m0 scales.
        how: by addresses; or by numbers alone, where a kernel skips what is padding.
        through: for kernels of both stages, the role through which this one was read, and how that was laid out.
    """

    layout: str | None
    others: tuple[str, ...] = ()
    pattern: str | None
    claimed: str | None = None
    verdict: Verdict = "unclaimed"
    bytes: int
    derived: int
    conflicts: int
    tried: dict[str, float] = Field(default_factory=dict)
    shape: tuple[int, int, int] | None = None
    how: Literal["addresses", "numbers"] = "addresses"
    through: str | None = None

    def compared(self, claimed: str | None) -> "RoleDerivation":
        """Return this result compared with the book's claim."""
        if self.conflicts:
            verdict: Verdict = "not derived"
        elif claimed is None:
            verdict = "unclaimed"
        else:
            verdict = "agrees" if claimed in (self.layout, *self.others) else "disagrees"
        return self.altered(claimed=claimed, verdict=verdict)


class KernelDerivation(Frozen):
    """Layouts that one kernel was found to read.

    Attributes:
        kernel: its symbol.
        sha256: of its code object's file, or of FlyDSL's dump.
        aiter: commit or version that it is from, where known.
        compiler: that made it, where it was compiled for this.
        machine_code: whether that compiler has instructions for all of it on that GPU.
        family: how it is called, by ``preshuffle.layouts.derive.FAMILIES``.
        book_family: the book's family, if it knows the name.
        sizes: of the layer on which weights were derived.
        roles: by name; empty where instructions are not modelled.
        pairs: relative L2 with w13 and its scales both interleaved, by ``weight + scale``.
        not_modelled: instructions or operations that the emulator does not know, with their counts.
    """

    kernel: str
    arch: str
    sha256: str
    aiter: str | None = None
    compiler: str | None = None
    machine_code: bool = True
    family: str
    book_family: str | None
    sizes: dict[str, int]
    roles: dict[str, RoleDerivation]
    pairs: dict[str, float] = Field(default_factory=dict)
    not_modelled: dict[str, int]
