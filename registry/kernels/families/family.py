"""Book entries about kernels: families, table tags and packings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from preshuffle.registry.base.frozen import Frozen, Version
from preshuffle.registry.base.linear_pattern import Pattern


class FamilyVariant(Frozen):
    """Layouts that a family reads under a condition.

    Attributes:
        when: allowed values by fact of the call or group of the kernel name (``name.<group>``; ``""``: absent).
        reads: layout id by role.
        note: what an answer with this variant must say.
    """

    when: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    reads: dict[str, str]
    note: str | None = None


class Family(Frozen):
    """Kernels that share a name grammar and the layouts they read.

    Attributes:
        stage: ``1``, ``2`` or ``1-stage``.
        funcs: AITER's functions that launch it, the usual one first.
        grammar: regular expression of the whole kernel name; named groups are what the name encodes.
        priority: where several families know one name, the highest has it; of equals the first by id.
        tables: whether tuned tables name its kernels.
        archs: architectures it exists for; empty for all.
        since: AITER version that has it first; empty where every version known here has it.
        backports: older releases that have it too: pairs of the first with it and the first without it again.
        encodes: what each group means.
        row_order: row order of w13 that it expects, in words.
        activation: how it takes activations, in words.
        ignores: call arguments that it silently drops.
        mx_scale_dims: dimensions that MX scales must have; None where it takes any number.
        variants: what it reads; the first that fits counts.
        evidence: where this is written.
    """

    id: str
    stage: Literal["1", "2", "1-stage"]
    funcs: Annotated[tuple[str, ...], Field(min_length=1)]
    grammar: Pattern
    priority: int = 0
    tables: bool = True
    archs: tuple[str, ...] = ()
    since: Version | Literal[""] = ""
    backports: tuple[tuple[Version, Version], ...] = ()
    encodes: dict[str, str] = Field(default_factory=dict)
    row_order: str = ""
    activation: str = ""
    ignores: tuple[str, ...] = ()
    mx_scale_dims: Literal[2, 3] | None = None
    variants: Annotated[tuple[FamilyVariant, ...], Field(min_length=1)]
    evidence: tuple[str, ...] = ()


class KernelTag(Frozen):
    """Pattern of names in tables that stand for no kernel."""

    id: str
    pattern: Pattern
    title: str
    evidence: tuple[str, ...] = ()


class Packing(Frozen):
    """Order of values in memory that is no permutation of bytes.

    No layout can describe it.

    Attributes:
        under: the layout in which the values lie before they are packed; None where it is not known.
    """

    id: str
    title: str
    under: str | None = None
    evidence: tuple[str, ...] = ()
