"""Recipe: layout of each tensor of a layer, and the call."""

from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from preshuffle.registry.base.errors import PlacedError
from preshuffle.registry.base.frozen import Frozen, FrozenDict
from preshuffle.registry.base.words import (
    ROLES,
    Activation,
    CallBackend,
    Dtype,
    GateMode,
    QuantType,
    Role,
    RowOrder,
    Step,
    TensorDtype,
)
from preshuffle.registry.text import field_problems

Multiple = Annotated[int, Field(ge=1, le=1 << 20)]


class PadStep(Frozen):
    """Pad multiple ``to`` for sizes up to ``upto``, or for all."""

    upto: Multiple | None = None
    to: Multiple


@lru_cache(maxsize=1)
def _pad_steps() -> TypeAdapter[tuple[PadStep, ...]]:
    return TypeAdapter(tuple[PadStep, ...])


def _pad_rule(value: Any) -> Any:
    """Say at the place itself what is wrong: a union would tell it once for each of its members."""
    if not isinstance(value, list | tuple):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1 << 20:
            raise ValueError(f"a multiple of 1 or more is needed, or a list of {{upto, to}}; found {value!r}")
        return value
    try:
        steps = _pad_steps().validate_python(value)
    except ValidationError as error:
        path, problem = field_problems(error)[0]
        raise PlacedError(path, problem.message) from None
    limits = [step.upto if step.upto is not None else 1 << 21 for step in steps]
    if not steps or limits != sorted(set(limits)):
        raise ValueError("steps go from the smallest `upto` to the largest; only the last may leave it out")
    return steps


PadRule = Annotated[
    Multiple | tuple[PadStep, ...], BeforeValidator(_pad_rule, json_schema_input_type=Multiple | tuple[PadStep, ...])
]
"""A multiple, or multiples by the size of the dimension on one rank; the first step that takes the size decides."""


def multiple_for(rule: PadRule, size: int) -> int:
    """Return the pad multiple for a size; 1 without a step.

    Example:
        >>> rule = (PadStep(upto=192, to=64), PadStep(to=128))
        >>> multiple_for(rule, 96), multiple_for(rule, 200)
        (64, 128)
    """
    if isinstance(rule, int):
        return rule
    return next((step.to for step in rule if step.upto is None or size <= step.upto), 1)


class PadTo(Frozen):
    """Pad multiples of rows (per half of w13) and K.

    In the tensor's own count: values, groups or blocks.
    """

    rows: PadRule = 1
    k: PadRule = 1


class Tail(Frozen):
    """Pad multiples of a scale flattened to ``[experts * rows, K]``.

    AITER pads it at its end.

    Where they do not divide, the buffer becomes two-dimensional, and one expert is no slice of it any more.

    Attributes:
        rows: multiple of all experts' rows together.
        k: multiple of the groups of K.
        fill: the byte that AITER writes behind K, in padded rows, too; the recipe's ``fill`` where it is left out.
    """

    rows: Multiple = 1
    k: Multiple = 1
    fill: Annotated[int, Field(ge=0, le=255)] | None = None


class TensorRecipe(Frozen):
    """How one role must lie.

    Attributes:
        layout: a layout of the book.
        pad: multiples to pad to.
        tail: for a scale: multiples of the flattened buffer, after ``pad``.
        fill: the byte that pads hold.
        dtype: the dtype that the kernel gets.
        steps: what is done to the values before they are laid out, in order (``pack_int4``: afterwards).
        order: the row order of w13 tensors after loading; GUGU rows alternate, whatever the layout does with them.
        is_shuffled: whether AITER's tag must be on the object that the kernel gets.
        rank0_only: whether only tensor-parallel rank 0 holds live values (others hold zeros), as for a bias that is
            added once to the reduced sum.
        default: the number in every place of a scale that the checkpoint does not have and the engine makes; the
            checkpoint's own scale is then what is folded into it. None where it must be there.
    """

    layout: str
    pad: PadTo = PadTo()
    tail: Tail | None = None
    fill: Annotated[int, Field(ge=0, le=255)] = 0
    dtype: TensorDtype
    steps: tuple[Step, ...] = ()
    order: RowOrder | None = None
    is_shuffled: bool = False
    rank0_only: bool = False
    default: Annotated[float, Field(gt=0)] | None = None


class PadArgument(Frozen):
    """Rounding and scaling of a pad that is passed to the kernel.

    Raw, rounded down to ``round_down``, times ``times_at_tp1`` at TP 1.

    An engine that does not pass it (``passed: false``) leaves AITER's default, 0.
    """

    round_down: Multiple = 1
    times_at_tp1: Multiple = 1
    passed: bool = True


class RouterWeight(Frozen):
    """How an engine puts the router's weight on an expert's input.

    It counts only for models whose router weights are applied there (``router_weight_on_input``).

    Attributes:
        by: ``kernel`` (``doweight_stage1`` is passed), ``caller`` (the engine multiplies the hidden states and passes
            ones), ``dropped`` (nothing is passed: the weight lands on the output) or ``refused`` (the engine raises).
        function: the entry point that is called then, where it is another one.
    """

    by: Literal["kernel", "caller", "dropped", "refused"] = "kernel"
    function: str | None = None


class Call(Frozen):
    """Kernel function, and its arguments that depend on the bytes.

    Attributes:
        gate_mode: what the bytes need.
        gate_mode_passed: false where the engine leaves AITER's default, which is separated; ``with_clamp`` where it
            passes gate_mode only together with a clamp (swiglu_limit above 0).
        bias: ``dropped`` where the engine converts biases and then does not pass them.
        function: the entry point, one of the book's ``functions``.
        backend: whose kernels run behind it.
        quant_dtype_a: the activation dtype, where the engine names one and AITER does not choose.
        swizzle_mx_scale: the label of Triton's scale swizzle.
        activation: what the engine really passes, where that is not the model's.
        swiglu_limit: ``absent`` where the clamp is not passed.
        router_weight: how a router weight on the input gets there.
    """

    gate_mode: GateMode
    gate_mode_passed: bool | Literal["with_clamp"] = True
    quant_type: QuantType
    hidden_pad: PadArgument = PadArgument()
    intermediate_pad: PadArgument = PadArgument()
    bias: Literal["passed", "dropped"] = "passed"
    function: str = "fused_moe"
    backend: CallBackend = "aiter"
    quant_dtype_a: Dtype | None = None
    swizzle_mx_scale: str | None = None
    activation: Activation | None = None
    swiglu_limit: Literal["passed", "absent"] = "passed"
    router_weight: RouterWeight = RouterWeight()

    def passes_gate_mode(self, swiglu_limit: float | None) -> bool:
        """Whether gate_mode reaches the kernel, for a model's clamp."""
        return bool(swiglu_limit) if self.gate_mode_passed == "with_clamp" else bool(self.gate_mode_passed)


class Requires(Frozen):
    """Requirements on GPU, AITER features and layer sizes.

    By feature and never by version.

    Attributes:
        arch: features of the GPU.
        aiter: features of AITER.
        gate_up_order: row orders of the checkpoint.
        multiples: what a dimension of one rank must divide by, before any padding; by its size where it is a rule.
    """

    arch: tuple[str, ...] = ()
    aiter: tuple[str, ...] = ()
    gate_up_order: tuple[RowOrder, ...] = ()
    activation: tuple[Activation, ...] = ()
    multiples: FrozenDict[Literal["hidden_size", "intermediate_size"], PadRule] = Field(default_factory=FrozenDict)


class Recipe(Frozen):
    """Complete way to lay out a layer: bytes, call and environment.

    They cannot be chosen apart.

    Attributes:
        sets: switches of ``env`` that the engine sets itself while loading; a deployment need not report them.
        suits: what it is for, in a few words: the reason that is given where it was not chosen.
        source: what produces the values before they come to us, where that is not the checkpoint alone.
        validity: where it is known to hold or not, in words; shown beside it where it was not chosen.
    """

    id: str
    title: str = ""
    tensors: FrozenDict[Role, TensorRecipe]
    call: Call
    env: FrozenDict[str, str] = Field(default_factory=FrozenDict)
    sets: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    requires: Requires = Requires()
    migration_safe: bool = False
    supports_lora: bool = False
    suits: str = "for another query"
    source: str = ""
    validity: str = ""
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
    def _has_both_weights(self) -> Self:
        for role in ("w13_weight", "w2_weight"):
            if role not in self.tensors:
                raise PlacedError(("tensors",), f"{role} is missing; every recipe says how both weights lie")
        for index, name in enumerate(self.sets):
            if name not in self.env:
                raise PlacedError(("sets", index), f"{name} is not in env, which says what it is set to")
        return self
