"""A recipe: how each tensor of one MoE layer must lie, and the call that goes with it, as one object."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from preshuffle.registry.errors import PlacedError
from preshuffle.registry.query import Frozen
from preshuffle.registry.words import ROLES, Activation, GateMode, QuantType, Role, RowOrder, TensorDtype

Multiple = Annotated[int, Field(ge=1, le=1 << 20)]


class PadTo(Frozen):
    """Multiples to pad to: rows (of each half, for w13) and K, in the tensor's own count (values or groups)."""

    rows: Multiple = 1
    k: Multiple = 1


class TensorRecipe(Frozen):
    """How one role must lie.

    Attributes:
        layout: a layout of the book.
        pad: multiples to pad to.
        fill: the byte that pads hold.
        dtype: the dtype that the kernel gets.
        order: the row order of w13 tensors after loading.
        is_shuffled: whether AITER's tag must be on the object that the kernel gets.
        rank0_only: whether only tensor-parallel rank 0 holds live values (others hold zeros), as for a bias that is
            added once to the reduced sum.
    """

    layout: str
    pad: PadTo = PadTo()
    fill: Annotated[int, Field(ge=0, le=255)] = 0
    dtype: TensorDtype
    order: RowOrder | None = None
    is_shuffled: bool = False
    rank0_only: bool = False


class PadArgument(Frozen):
    """How a pad is passed to the kernel: raw, rounded down to ``round_down``, times ``times_at_tp1`` at TP 1."""

    round_down: Multiple = 1
    times_at_tp1: Multiple = 1


class Call(Frozen):
    """Arguments of the fused-MoE call that the bytes depend on."""

    gate_mode: GateMode
    quant_type: QuantType
    hidden_pad: PadArgument = PadArgument()
    intermediate_pad: PadArgument = PadArgument()


class Requires(Frozen):
    """What a recipe needs from the GPU and from AITER, by feature and never by version."""

    arch: tuple[str, ...] = ()
    aiter: tuple[str, ...] = ()
    gate_up_order: tuple[RowOrder, ...] = ()
    activation: tuple[Activation, ...] = ()


class Recipe(Frozen):
    """One way to lay out a layer, complete: bytes, call and environment cannot be chosen apart.

    Attributes:
        suits: what it is for, in a few words: the reason that is given where it was not chosen.
        cuts: how its loader cuts a dimension between ranks; ``values`` slices through groups that share a scale where
            they do not divide, which no layout can mend.
    """

    id: str
    title: str = ""
    tensors: dict[Role, TensorRecipe]
    call: Call
    env: dict[str, str] = Field(default_factory=dict)
    tags: tuple[str, ...] = ()
    requires: Requires = Requires()
    cuts: Literal["groups", "values"] = "groups"
    migration_safe: bool = False
    supports_lora: bool = False
    suits: str = "for another query"
    evidence: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _in_role_order(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("tensors"), dict):
            tensors = value["tensors"]
            known = {role: tensors[role] for role in ROLES if role in tensors}
            return {**value, "tensors": {**known, **tensors}}
        return value

    @model_validator(mode="after")
    def _has_both_weights(self) -> Recipe:
        for role in ("w13_weight", "w2_weight"):
            if role not in self.tensors:
                raise PlacedError(("tensors",), f"{role} is missing; every recipe says how both weights lie")
        return self
